//! The rule is shown a sound document, and then each way in which document and source may part.

use crate::tidy::check;
use crate::tree::Tree;

const SOURCE: &str = "\
//! Marks.

/// Bytes of a mark.
pub const MARK_BYTES: usize = 4 << 2;
const MAGIC: [u8; 8] = *b\"TIDEMARK\";

/// A mark.
///
/// | at | size | field    | meaning    |
/// |---:|-----:|----------|------------|
/// |  0 |    8 | magic    | `TIDEMARK` |
/// |  8 |    4 | `base`   | first      |
/// | 12 |    4 | `length` | of it      |
#[derive(Debug)]
pub struct Mark {
    base: u32,
    length: u32,
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        [&MAGIC, &self.base.to_le_bytes(), &self.length.to_le_bytes()].concat()
    }
}
";

const PAGE: &str = "\
# Marks

<!-- layout: engine/src/lib.rs Mark MARK_BYTES -->
| at | size | field | why |
|---:|---:|---|---|
| 0 | 8 | magic | `TIDEMARK` |
| 8 | 4 | base | it begins |
| 12 | 4 | length | it ends |

Golden bytes: `mark.bin`.

<!-- limits -->
| limit | value | where |
|---|---|---|
| a mark | 16 bytes | `engine/src/lib.rs` `MARK_BYTES` |

Recovery meets it in row `end_above`.
";

const TABLE: &str = "//! Rows.\nconst TABLE: &[Row] = &[row(\"end_above\", ANY)];\n";

/// The findings of the sound tree in which each `from` of a file became `to`.
fn changed(changes: &[(&str, &str, &str)]) -> Vec<String> {
    let mut tree = Tree::default();
    tree.insert("engine/Cargo.toml", b"[package]\n".to_vec());
    let files = [
        ("engine/src/lib.rs", SOURCE.to_owned() + "mod log;\n"),
        ("engine/src/log.rs", "mod recovery;\n".to_owned()),
        ("engine/src/log/recovery.rs", "mod table;\n".to_owned()),
        ("engine/src/log/recovery/table.rs", TABLE.to_owned()),
        ("docs/formats/mark.md", PAGE.to_owned()),
        ("docs/errors/README.md", "# Errors\n\n## Index\n\n".to_owned()),
    ];
    for (path, mut text) in files {
        for (_, from, to) in changes.iter().filter(|(changed, _, _)| *changed == path) {
            assert!(text.contains(from), "{path} has no {from:?}");
            text = text.replacen(from, to, 1);
        }
        tree.insert(path, text.into_bytes());
    }
    tree.insert("engine/testdata/format-1/mark.bin", vec![0xff]);
    check(&tree).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_found(changes: &[(&str, &str, &str)], expected: &str) {
    let findings = changed(changes);
    assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:#?}");
}

const DOC: &str = "docs/formats/mark.md";
const LIB: &str = "engine/src/lib.rs";

#[test]
fn a_document_that_is_the_source_has_no_findings() {
    assert_eq!(changed(&[]), Vec::<String>::new());
}

/// Three names stood in data directories of which the page knew nothing.
#[test]
fn a_name_at_the_top_of_a_data_directory_that_its_page_does_not_tell_is_found() {
    let page = |row: &str| {
        let mut tree = Tree::default();
        let source = "fn dir(data_dir: &Path) -> PathBuf {\n    data_dir.join(\"repair\")\n}\n";
        tree.insert("engine/src/repair.rs", source.as_bytes().to_vec());
        tree.insert("docs/formats/directory.md", row.as_bytes().to_vec());
        check(&tree).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = "repair.rs:2: formats: docs/formats/directory.md has no row for `repair`";
    let found = |row| page(row).iter().any(|finding| finding.contains(expected));
    assert!(found("| `recovery/` | reports, not `repair` | none |\n"));
    assert!(!found("| `recovery/`, `repair/<name>` | files | none |\n"));
}

#[test]
fn another_name_place_size_or_order_in_the_document_is_found() {
    assert_found(
        &[(DOC, "| base |", "| first |")],
        "mark.md:7: formats: first at 8, 4 bytes; engine/src/lib.rs:12 says base",
    );
    assert_found(&[(DOC, "| 8 | 4 | base", "| 8 | 2 | base")], "base at 8, 2 bytes");
    assert_found(&[(DOC, "| 12 | 4 | length", "| 8 | 4 | length")], "length at 8");
    assert_found(
        &[(DOC, "| 12 | 4 | length | it ends |\n", "")],
        "2 fields, `Mark` in engine/src/lib.rs has 3",
    );
}

#[test]
fn a_change_of_the_source_that_the_document_does_not_follow_is_found() {
    assert_found(
        &[(LIB, "|  8 |    4 | `base`   |", "|  8 |    4 | `start`  |")],
        "base at 8, 4 bytes; engine/src/lib.rs:12 says start",
    );
    assert_found(
        &[(LIB, "4 << 2", "5 << 2")],
        "the table ends at 16, `MARK_BYTES` in engine/src/lib.rs is 20",
    );
    assert_found(&[(LIB, "b\"TIDEMARK\"", "b\"TIDEMORK\"")], "has no magic `TIDEMARK`");
    let swapped = [(LIB, "&self.base.to", "&self.other.to"), (LIB, "&self.length.to", "&self.base.to")];
    assert_found(&swapped, "`length` is not written in its turn by `Mark::encode`");
    assert_found(
        &[(LIB, "struct Mark", "struct Note")],
        "the doc of `Mark` in engine/src/lib.rs has no layout table",
    );
}

#[test]
fn a_table_with_a_gap_is_found_in_document_and_source() {
    let gap =
        [(DOC, "| 12 | 4 | length", "| 13 | 4 | length"), (LIB, "| 12 |    4 | `len", "| 13 |    4 | `len")];
    assert_found(&gap, "mark.md:8: formats: `length` at 13 does not follow `base`, which ends at 12");
    assert_found(&gap, "lib.rs:13: formats: `length` at 13 does not follow");
}

#[test]
fn a_table_of_nobody_and_a_layout_without_a_table_are_found() {
    assert_found(
        &[(DOC, "<!-- layout: engine/src/lib.rs Mark MARK_BYTES -->\n", "")],
        "no `<!-- layout: FILE ITEM -->`",
    );
    assert_found(
        &[(DOC, "src/lib.rs Mark MARK", "src/none.rs Mark MARK")],
        "`engine/src/none.rs` is not there",
    );
    assert_found(&[(DOC, "| at | size | field", "| from | size | field")], "no table follows `layout: ");
}

#[test]
fn another_limit_than_the_constant_is_found() {
    assert_found(&[(DOC, "16 bytes", "16 KiB")], "`16 KiB`; `MARK_BYTES` in engine/src/lib.rs is 16");
    assert_found(&[(DOC, "` `MARK_BYTES`", "` `MARK_LIMIT`")], "has no constant `MARK_LIMIT`");
    assert_found(&[(DOC, "| limit |", "limit")], "no table of limits follows");
}

#[test]
fn golden_files_that_no_page_tells_or_that_are_not_there_are_found() {
    assert_found(&[(DOC, "`mark.bin`", "`note.bin`")], "there is no golden file `note.bin`");
    assert_found(
        &[(DOC, "`mark.bin`", "kept")],
        "mark.bin: formats: no page in docs/formats names this golden file",
    );
}

#[test]
fn a_row_of_recovery_that_is_not_there_is_found() {
    assert_found(&[(DOC, "row `end_above`", "row `end_aside`")], "recovery's table has no row `end_aside`");
}
