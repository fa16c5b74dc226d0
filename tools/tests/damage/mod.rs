//! Damage to the directory of a stopped node: named exactly, served around, mended to the very bytes.

#![expect(clippy::disallowed_methods, reason = "a test harms real files and reads the manual")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{Cluster, flights, number, output, split_lines, tidelog};

/// Runs `tidelog segment …` with `--json`; its answer and exit code.
#[track_caller]
fn segment(arguments: &[&str]) -> (Value, i32) {
    let output = output(tidelog().arg("segment").args(arguments).arg("--json"));
    let (answer, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let answer = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}{errors}"));
    (answer, output.status.code().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every segment of a node with its bytes.
fn segments(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![data.join("logs")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let below = path.strip_prefix(data).unwrap().to_path_buf();
                found.insert(below, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A log's directory and its files, the log chosen by how many it has.
fn log_with(data: &Path, wanted: impl Fn(usize) -> bool) -> (PathBuf, Vec<PathBuf>) {
    let (answer, _) = segment(&["inspect", text(data)]);
    let logs = answer.pointer("/paths/0/logs").and_then(Value::as_array).unwrap();
    let files = |log: &Value| -> Vec<PathBuf> {
        let segments = log.get("segments").and_then(Value::as_array).unwrap();
        segments.iter().map(|segment| segment.get("file").and_then(Value::as_str).unwrap().into()).collect()
    };
    let log = logs.iter().find(|log| wanted(files(log).len())).unwrap_or_else(|| panic!("{answer}"));
    (log.get("dir").and_then(Value::as_str).unwrap().into(), files(log))
}

/// The bytes and offsets of each frame of a segment.
fn frames(file: &Path) -> Vec<(Range<u64>, Range<u64>)> {
    let (answer, _) = segment(&["explain", "--frames", text(file)]);
    let parts = answer.pointer("/files/0/parts").and_then(Value::as_array).unwrap();
    let of_frames = parts.iter().filter(|part| part.get("label") == Some(&Value::from("frames")));
    of_frames
        .map(|part| {
            let content = part.get("content").and_then(Value::as_str).unwrap();
            let offsets = content.split("offsets ").nth(1).unwrap().split(',').next().unwrap();
            let (first, end) = offsets.split_once("..").unwrap();
            (number(part, "/from")..number(part, "/to"), first.parse().unwrap()..end.parse().unwrap())
        })
        .collect()
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

fn at(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

/// A damaged range that is expected, and a word of the reason.
type Expected = (PathBuf, Range<u64>, Option<Range<u64>>, &'static str);

/// One segment each: a bit, a sector, a tail, two frames swapped, and a segment of another channel.
fn harm(files: &[PathBuf], foreign: &Path) -> Vec<Expected> {
    let joined = |frames: &[(Range<u64>, Range<u64>)]| {
        let (first, last) = (frames.first().unwrap(), frames.last().unwrap());
        (first.0.start..last.0.end, Some(first.1.start..last.1.end))
    };
    let mut expected = Vec::new();

    let all = frames(&files[0]);
    let (bytes, offsets) = all[2].clone();
    change(&files[0], |content| content[at(bytes.start) + 90] ^= 4);
    expected.push((files[0].clone(), bytes, Some(offsets), "checksum"));

    let sector = 4096..4608;
    let touched: Vec<_> = frames(&files[1])
        .into_iter()
        .filter(|(bytes, _)| bytes.start < sector.end && bytes.end > sector.start)
        .collect();
    change(&files[1], |content| content[at(sector.start)..at(sector.end)].fill(0));
    let (bytes, offsets) = joined(&touched);
    expected.push((files[1].clone(), bytes, offsets, ""));

    let all = frames(&files[2]);
    let (last, offsets) = all.last().unwrap().clone();
    change(&files[2], |content| content.truncate(at(last.start) + 100));
    expected.push((files[2].clone(), last.start..last.start + 100, Some(offsets), ""));

    let all = frames(&files[3]);
    let (one, other) = (all[1].0.clone(), all[2].0.clone());
    change(&files[3], |content| {
        let swapped =
            [&content[at(other.start)..at(other.end)], &content[at(one.start)..at(one.end)]].concat();
        content[at(one.start)..at(other.end)].copy_from_slice(&swapped);
    });
    let (bytes, offsets) = joined(&all[1..=2]);
    expected.push((files[3].clone(), bytes, offsets, "which belongs at byte"));

    let all = frames(&files[4]);
    std::fs::copy(foreign, &files[4]).unwrap();
    let len = std::fs::metadata(foreign).unwrap().len();
    expected.push((files[4].clone(), 0..len, joined(&all).1, "does not belong here"));
    expected
}

#[track_caller]
fn assert_named(verdict: &Value, expected: &[Expected]) {
    let damage = verdict.get("damage").and_then(Value::as_array).unwrap();
    assert_eq!(damage.len(), expected.len(), "{verdict:#}");
    for (file, bytes, offsets, why) in expected {
        let named = damage.iter().find(|one| one.get("file").and_then(Value::as_str) == Some(text(file)));
        let named = named.unwrap_or_else(|| panic!("{} is not named: {verdict:#}", file.display()));
        assert_eq!(named.get("bytes"), Some(&Value::from(vec![bytes.start, bytes.end])), "{named}");
        let offsets = offsets.as_ref().map(|offsets| vec![offsets.start, offsets.end]);
        assert_eq!(named.get("offsets"), Some(&Value::from(offsets)), "{named}");
        assert!(named.get("why").and_then(Value::as_str).unwrap().contains(why), "{named}");
    }
}

/// A cluster with a channel of many segments, another channel, and all nodes stopped.
fn stopped_cluster(input: &[u8]) -> Cluster {
    let cluster = Cluster::start();
    cluster.json(&["channel", "create", "flights", "--segment-bytes", "16KiB"]);
    let mut producer = cluster.produce("20");
    producer.feed(input);
    assert_eq!(producer.finish().1, Some(0));
    cluster.json(&["channel", "create", "other"]);
    let file = cluster.dir().join("input");
    std::fs::write(&file, split_lines(input, 40).0).unwrap();
    cluster.json(&["produce", "other", "--file", text(&file)]);
    cluster.wait_until("equal replicas", |status| {
        let ends = |channel: usize, end: u64| {
            (0..3).all(|replica| {
                let pointer = format!("/channels/{channel}/partitions/0/replicas/{replica}/offset");
                status.pointer(&pointer).and_then(Value::as_u64) == Some(end)
            })
        };
        ends(0, 2_000) && ends(1, 40)
    });
    cluster.json(&["down", "--dir", text(cluster.dir())]);
    cluster
}

#[test]
fn damage_is_named_exactly_and_served_around_and_mended_to_the_very_bytes() {
    let input = flights();
    let cluster = stopped_cluster(&input);
    let (data, healthy) = (cluster.dir().join("node-0/data"), cluster.dir().join("node-1/data"));
    let before = segments(&data);
    assert_eq!(segment(&["verify", text(&data)]).1, 0);
    let (log, files) = log_with(&data, |files| files > 8);
    let (_, others) = log_with(&data, |files| files == 1);

    let expected = harm(&files, &others[0]);
    let (verdict, exit_code) = segment(&["verify", text(&data)]);
    assert_eq!(exit_code, 1);
    assert_named(&verdict, &expected);
    let (plan, exit_code) = segment(&["repair", text(&data), "--from", text(&healthy)]);
    assert_eq!(exit_code, 0, "all of it can be mended: {plan:#}");

    // A server on the damaged directory serves all the rest.
    cluster.up();
    cluster.wait_until("a served channel", |status| crate::cluster::high_watermark(status) == 2_000);
    let refused =
        output(tidelog().args(["segment", "repair", "--apply", text(&data), "--from", text(&healthy)]));
    assert_eq!(refused.status.code(), Some(1), "a running node is not repaired");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("E0207"));
    let mut lost: Vec<Range<u64>> = expected.iter().filter_map(|one| one.2.clone()).collect();
    lost.sort_by_key(|lost| lost.start);
    let mut from = 0;
    for next in lost.iter().map(|lost| lost.start..lost.end).chain(std::iter::once(2_000..2_000)) {
        if from < next.start {
            let count = (next.start - from).to_string();
            let read = output(&mut cluster.command(&[
                "consume",
                "flights",
                "--node",
                "0",
                "--from",
                &from.to_string(),
                "--max",
                &count,
            ]));
            let (until, _) = split_lines(&input, at(next.start));
            let skipped = if from == 0 { 0 } else { split_lines(&input, at(from)).0.len() };
            // Whether it also looked ahead, into the damage, is its own affair.
            let errors = String::from_utf8_lossy(&read.stderr);
            assert!(read.stdout == until[skipped..], "offsets {from}..{}: {errors}", next.start);
        }
        from = next.end;
    }

    cluster.json(&["down", "--dir", text(cluster.dir())]);
    let (done, exit_code) = segment(&["repair", "--apply", text(&data), "--from", text(&healthy)]);
    assert_eq!(exit_code, 0, "{done:#}");
    assert!(segments(&data) == before, "the very bytes: {done:#}");
    assert_eq!(segment(&["verify", text(&data)]).1, 0);
    let (again, exit_code) = segment(&["repair", "--apply", text(&data), "--from", text(&healthy)]);
    assert_eq!(
        (again.get("steps"), exit_code),
        (Some(&Value::Array(Vec::new())), 0),
        "nothing to mend twice"
    );

    the_manual_runs(cluster.dir(), &log);
    a_copy_without_checkpoints_is_not_called_sound(cluster.dir(), &log);
    cluster.up();
    assert!(cluster.consume_from(0) == input);
}

fn a_copy_without_checkpoints_is_not_called_sound(dir: &Path, log: &Path) {
    let copy = dir.join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(log).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let (verdict, exit_code) = segment(&["verify", text(&copy)]);
    assert_eq!((verdict.pointer("/damage/0"), exit_code), (None, 3), "{verdict:#}");
    assert_eq!(verdict.pointer("/not_judged/0/path"), Some(&Value::from(text(&copy))), "{verdict:#}");
}

/// Every command of the page about checking and repairing runs as it stands there, on a sound directory.
fn the_manual_runs(dir: &Path, log: &Path) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations/check-and-repair.md");
    let page = std::fs::read_to_string(page).unwrap();
    let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("tidelog segment ")).collect();
    assert_eq!(commands.len(), 7, "{commands:?}");
    for line in commands {
        let real = |word: &str| match (word.strip_prefix("D/node-0/data/logs/2/0"), word.strip_prefix("D/")) {
            (Some(file), _) => format!("{}{file}", log.display()),
            (None, Some(below)) => format!("{}/{below}", dir.display()),
            (None, None) => word.to_owned(),
        };
        let output = output(tidelog().args(line.split_whitespace().skip(1).map(real)));
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty(), "{line}");
    }
}

/// Each wrong question has an answer with a code, and exit codes tell a wrong question from damage: a path that is not there
/// was answered as damage is.
#[test]
fn wrong_questions_about_segments_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let empty = text(dir.path());
    for (exit_code, arguments) in [
        (2, &["verify", empty][..]),
        (2, &["explain", empty]),
        (2, &["repair", "--apply", empty]),
        (2, &["verify"]),
        (2, &["verify", "/nowhere/at/all"]),
        (2, &["explain", "/nowhere/at/all.seg"]),
        (2, &["repair", "/nowhere/at/all"]),
        (2, &["repair", "--apply", "/nowhere/at/all"]),
    ] {
        let output = output(tidelog().arg("segment").args(arguments));
        assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}");
    }
}

/// Copies of which nothing could be compared were as good as equal ones: exit code 0.
#[test]
fn copies_that_nothing_compares_are_not_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one.seg"), dir.path().join("other.seg"));
    std::fs::write(&one, golden_segment()).unwrap();
    std::fs::write(&other, golden_segment()).unwrap();
    assert_eq!(segment(&["compare", text(&one), text(&other)]).1, 0);
    change(&other, |bytes| bytes[80..].fill(0));
    let compared = output(tidelog().args(["segment", "compare", text(&one), text(&other)]));
    assert_eq!(compared.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&compared.stderr).contains("E3228"), "{compared:?}");
}

/// A lone segment with a bad header was dumped as nothing, with exit code 0; and damage was told as text beside JSON.
#[test]
fn a_dump_as_json_tells_its_damage_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.seg");
    std::fs::write(&copy, golden_segment()).unwrap();
    change(&copy, |bytes| bytes[33] ^= 1);
    let dumped = output(tidelog().args(["segment", "dump", "--json", text(&copy)]));
    assert_eq!(dumped.status.code(), Some(1));
    assert!(!dumped.stdout.is_empty());
    let errors = String::from_utf8_lossy(&dumped.stderr);
    let told = errors.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let bytes = told.as_ref().and_then(|told| told.pointer("/damaged/bytes"));
    assert_eq!(bytes, Some(&Value::from(vec![0, 80])), "{errors}");
}

fn golden_segment() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/testdata/format-1/sealed-segment.bin");
    std::fs::read(path).unwrap()
}
