//! Every rule is shown a tree that breaks it, and one that does not. The format documents have tests of their own.

use super::{check, is_test};
use crate::tree::Tree;

/// A small tree that breaks no rule.
fn sound() -> Tree {
    tree(&[
        (
            "engine/Cargo.toml",
            "[package]\nname = \"tidelog-engine\"\n[dependencies]\ntidelog-wire.workspace = true\n",
        ),
        ("engine/src/lib.rs", "//! Engine.\npub mod recovery;\nmod segment;\n"),
        ("engine/src/segment.rs", "#[error(\"E0102 {path}: damaged\")]\n"),
        ("engine/src/recovery.rs", "mod table;\n"),
        ("engine/src/recovery/table.rs", "//! Rows.\n"),
        ("engine/tests/crash.rs", "assert!(text.starts_with(\"E0102 \"));\n"),
        ("docs/errors/E0102.md", "# E0102: damaged\n\n## Cause\n\n## Risk to data\n\n## What to do\n"),
        ("docs/errors/README.md", "# Errors\n\n## Index\n\n- [E0102: damaged](E0102.md)\n"),
    ])
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.insert(path, text.as_bytes().to_vec());
    }
    tree
}

/// The findings after one more file is put into the sound tree.
fn with(path: &str, text: &str) -> Vec<String> {
    let mut tree = sound();
    tree.insert(path, text.as_bytes().to_vec());
    check(&tree).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_only(findings: &[String], expected: &str) {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(findings[0].contains(expected), "{findings:#?}");
}

#[test]
fn a_sound_tree_has_no_findings() {
    assert_eq!(check(&sound()), []);
}

#[test]
fn a_file_of_501_lines_is_too_long_and_one_of_500_is_not() {
    let lines = |count: usize| format!("const A: &str = \"E0102 \";\n{}", "//\n".repeat(count - 1));
    assert_eq!(with("engine/src/segment.rs", &lines(500)), Vec::<String>::new());
    assert_only(&with("engine/src/segment.rs", &lines(501)), "engine/src/segment.rs: length: 501 lines");
}

#[test]
fn a_grab_bag_name_is_found_for_files_and_folders() {
    assert_only(&with("docs/misc/notes.md", ""), "names: `misc`");
    assert!(with("engine/src/utils.rs", "")[0].contains("names: `utils.rs`"));
}

#[test]
fn a_file_that_no_mod_line_leads_to_is_found() {
    assert_only(&with("engine/src/forgotten.rs", ""), "engine/src/forgotten.rs: reachable");
    // A file beside the module is not a file below it.
    assert_only(&with("engine/src/table.rs", ""), "engine/src/table.rs: reachable");
}

#[test]
fn crate_roots_and_named_paths_are_reachable() {
    for path in
        ["engine/src/bin/tool.rs", "engine/tests/other.rs", "engine/benches/speed.rs", "engine/build.rs"]
    {
        assert_eq!(with(path, ""), Vec::<String>::new(), "{path}");
    }
    let mut tree = sound();
    tree.insert("fuzz/Cargo.toml", b"[package]\n[[bin]]\npath = \"fuzz_targets/frame.rs\"\n".to_vec());
    tree.insert("fuzz/fuzz_targets/frame.rs", Vec::new());
    assert_eq!(check(&tree), []);
}

#[test]
fn an_arrow_against_the_layers_is_found() {
    let manifest = "[package]\n[dependencies]\ntidelog-consensus.workspace = true\n";
    assert_only(&with("engine/Cargo.toml", manifest), "engine must not know consensus");
    let for_tests = "[package]\n[dev-dependencies]\ntidelog-consensus.workspace = true\n";
    assert_eq!(with("engine/Cargo.toml", for_tests), Vec::<String>::new());
}

#[test]
fn a_code_without_a_page_is_found() {
    let findings = with("engine/src/segment.rs", "\"E0102 \"\n\"E0103 \"\n");
    assert_only(&findings, "engine/src/segment.rs:2: codes: E0103 has no page");
}

#[test]
fn a_code_used_twice_is_found() {
    let findings = with("engine/src/recovery/table.rs", "#[error(\"E0102 {path}: something else\")]\n");
    assert_only(&findings, "E0102 is used already at");
}

#[test]
fn a_code_of_another_crate_is_found() {
    let mut tree = sound();
    tree.insert("wire/src/x.rs", b"\"E0199 \"".to_vec());
    tree.insert("wire/Cargo.toml", b"[package]\npath = \"src/x.rs\"\n".to_vec());
    let findings: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(|finding| finding.contains("outside the range")), "{findings:?}");
}

#[test]
fn a_page_without_code_index_line_or_sections_is_found() {
    let findings = with("docs/errors/E0104.md", "# E0104\n");
    for expected in
        ["no error uses E0104", "must begin `# E0104: `", "sections must be", "run `cargo xtask tidy --mend`"]
    {
        assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:#?}");
    }
}

#[test]
fn a_mention_of_a_code_that_does_not_exist_is_found() {
    assert_only(&with("README.md", "see E0999\n"), "README.md:1: codes: E0999 is mentioned");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    assert_only(&with("README.md", "[a](docs/none.md)\n"), "README.md:1: links: the link to `docs/none.md`");
    let good = "[a](docs/errors/) [b](docs/errors/README.md#x) [c](https://example.com) [d](#e)\n";
    assert_eq!(with("README.md", good), Vec::<String>::new());
    assert_eq!(
        with("docs/formats/README.md", "[E0102](../errors/E0102.md) [up](../../engine)\n"),
        Vec::<String>::new()
    );
}

#[test]
fn work_left_open_is_found() {
    assert_only(&with("README.md", concat!("TO", "DO later\n")), "finish it, or write it up as an issue");
    assert_eq!(with("README.md", concat!("TO", "DOs are not marks\n")), Vec::<String>::new());
}

#[test]
fn a_path_of_one_machine_is_found() {
    assert_only(&with("README.md", concat!("see /ho", "me/me/notes\n")), "exists on one machine only");
    assert_eq!(with("README.md", concat!("see docs/ho", "me/notes\n")), Vec::<String>::new());
}

#[test]
fn a_lock_of_the_engine_that_no_scheduler_knows_is_found() {
    let segment = "engine/src/segment.rs";
    let error = "#[error(\"E0102 {path}: damaged\")]\n";
    assert_only(&with(segment, &format!("use std::sync::{{Arc, Mutex}};\n{error}")), "come from");
    assert_only(&with(segment, &format!("use std::sync::atomic::AtomicBool;\n{error}")), "come from");
    assert_eq!(with(segment, &format!("use std::sync::Arc;\n{error}")), Vec::<String>::new());
    assert_eq!(with("engine/tests/crash.rs", "use std::sync::Mutex;\n"), Vec::<String>::new());
}

#[test]
fn a_test_switched_off_or_asleep_is_found() {
    assert_only(&with("engine/tests/crash.rs", concat!("#[ig", "nore]\n")), "switched off without a reason");
    assert_only(&with("engine/tests/crash.rs", concat!("thread::sl", "eep(x)\n")), "a test sleeps");
    assert!(is_test("engine/src/recovery/tests.rs") && !is_test("engine/src/attests.rs"));
}

#[test]
fn the_index_of_the_pages_is_derived() {
    let mut tree = sound();
    tree.insert("engine/src/recovery/table.rs", b"\"E0105 \"".to_vec());
    tree.insert(
        "docs/errors/E0105.md",
        b"# E0105: full\n\n## Cause\n\n## Risk to data\n\n## What to do\n".to_vec(),
    );
    assert_eq!(check(&tree).len(), 1, "the index is behind");
    let (path, text) = super::codes::index(&tree);
    assert!(text.starts_with("# Errors\n\n## Index\n"), "what stands above is kept: {text}");
    tree.insert(&path, text.into_bytes());
    assert_eq!(check(&tree), []);
}
