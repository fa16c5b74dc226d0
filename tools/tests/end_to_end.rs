//! The whole system as people run it: real processes, real disks, real kills, driven by the commands alone.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod operations;

use cluster::{Cluster, flights, high_watermark, number, output, replicas_agree, split_lines, tidelog};
use serde_json::Value;

/// A leader killed in mid-stream costs nothing that was acknowledged, and the replicas agree afterwards.
#[test]
fn a_stream_survives_the_sudden_death_of_its_leader() {
    let cluster = Cluster::start();
    let input = flights();
    let (before, after) = split_lines(&input, 700);
    cluster.json(&["channel", "create", "flights"]);
    let mut producer = cluster.produce("20");

    producer.feed(before);
    let status = cluster.wait_until("700 records", |status| high_watermark(status) == 700);
    let leader = number(&status, "/channels/0/partitions/0/leader");
    cluster.kill(&status, leader);
    producer.feed(after);
    let (summary, exit_code) = producer.finish();

    assert_eq!(exit_code, Some(0), "{summary}");
    assert_eq!(number(&summary, "/records"), 2_000);
    assert_eq!((number(&summary, "/first_offset"), number(&summary, "/last_offset")), (0, 1_999));
    let status = cluster.wait_until("a new leader", |status| {
        let now = status.pointer("/channels/0/partitions/0/leader").and_then(Value::as_u64);
        now.is_some_and(|now| now != leader)
    });
    assert_eq!(high_watermark(&status), 2_000, "nothing lost, nothing twice: {status}");

    let brought = cluster.up();
    let started = brought.pointer(&format!("/nodes/{leader}/started"));
    assert_eq!(started, Some(&Value::Bool(true)), "only what does not run is started: {brought}");
    cluster.wait_until("equal replicas", |status| replicas_agree(status, 2_000));
    for node in 0..3 {
        assert!(cluster.consume_from(node) == input, "node {node} gives back the input, byte for byte");
    }
}

/// All nodes die at once in mid-stream. `up` brings them back by itself, with everything that was acknowledged.
#[test]
fn acknowledged_records_survive_the_death_of_all_nodes() {
    let cluster = Cluster::start();
    let input = flights();
    let (before, after) = split_lines(&input, 700);
    cluster.json(&["channel", "create", "flights"]);
    let mut producer = cluster.produce("20");

    producer.feed(before);
    let status = cluster.wait_until("700 records", |status| high_watermark(status) == 700);
    producer.feed(after);
    for node in 0..3 {
        cluster.kill(&status, node);
    }
    cluster.up();
    // Whether the producer lived to see the cluster again is a matter of time; what it says it has, must be there.
    let (summary, _) = producer.finish();

    let acknowledged = usize::try_from(number(&summary, "/records")).unwrap();
    assert!(acknowledged >= 700, "{summary}");
    let status = cluster.status();
    let kept = high_watermark(&status);
    cluster.wait_until("equal replicas", |status| replicas_agree(status, kept));
    let (expected, _) = split_lines(&input, usize::try_from(kept).unwrap());
    assert!(usize::try_from(kept).unwrap() >= acknowledged, "{summary}, and only {kept} are there");
    for node in 0..3 {
        assert!(cluster.consume_from(node) == expected, "node {node} gives back the beginning of the input");
    }
}

/// A node that was away until the others had dropped the raft log it lacks is brought up by files, into the same bytes.
#[test]
fn a_node_that_was_away_for_long_catches_up_by_snapshot() {
    let cluster = Cluster::start();
    cluster.configure_nodes("[checkpoint]\nbytes = \"64KiB\"\nseconds = 1\n");
    cluster.json(&["channel", "create", "flights", "--segment-bytes", "256KiB"]);
    let input = flights().repeat(20);
    cluster.kill(&cluster.status(), 0);

    let mut producer = cluster.produce("200");
    producer.feed(&input);
    let (summary, exit_code) = producer.finish();
    assert_eq!(exit_code, Some(0), "{summary}");
    cluster.up();

    cluster.wait_until("equal replicas", |status| replicas_agree(status, 40_000));
    assert!(cluster.log(0).contains("switched to a snapshot"), "{}", cluster.log(0));
    assert!(cluster.consume_from(0) == input, "what came by snapshot is the input, byte for byte");
}

/// Interrupted, the producer says what is safe; that much is there.
#[test]
fn an_interrupted_producer_says_what_was_acknowledged() {
    let cluster = Cluster::start();
    let input = flights();
    cluster.json(&["channel", "create", "flights"]);
    let mut producer = cluster.produce("100");
    producer.feed(split_lines(&input, 300).0);
    cluster.wait_until("300 records", |status| high_watermark(status) == 300);

    let (summary, exit_code) = producer.interrupt();

    assert_eq!(exit_code, Some(1));
    assert_eq!(number(&summary, "/records"), 300);
    assert_eq!(number(&summary, "/last_offset"), 299);
    assert!(
        summary.get("error").and_then(Value::as_str).is_some_and(|error| error.starts_with("E32")),
        "{summary}"
    );
}

/// Stopped and started again, a cluster is the same cluster.
#[test]
fn a_cluster_that_was_stopped_comes_back_with_its_records() {
    let cluster = Cluster::start();
    let input = flights();
    cluster.json(&["channel", "create", "flights", "--segment-bytes", "64KiB"]);
    let mut producer = cluster.produce("50");
    producer.feed(&input);
    assert_eq!(producer.finish().1, Some(0));

    let dir = cluster.dir().to_str().unwrap();
    let down = cluster.json(&["down", "--dir", dir]);
    for node in 0..3 {
        assert_eq!(down.pointer(&format!("/nodes/{node}/outcome")).unwrap(), "stopped", "{down}");
    }
    cluster.up();

    cluster.wait_until("equal replicas", |status| replicas_agree(status, 2_000));
    assert!(cluster.consume_from(1) == input);
}

/// Each wrong question has its own answer, with a code and the next step, and leaves the cluster unharmed.
#[test]
fn wrong_questions_are_answered_and_harm_nothing() {
    let cluster = Cluster::start();
    cluster.json(&["channel", "create", "flights"]);
    for (exit_code, arguments) in [
        (1, &["consume", "nowhere", "--until-end"][..]),
        (1, &["consume", "flights", "--from", "17", "--until-end"]),
        (1, &["consume", "flights", "--partition", "9", "--until-end"]),
        (1, &["channel", "create", "flights"]),
        (1, &["channel", "create", "other", "--replicas", "9"]),
        (1, &["channel", "delete", "flights", "--generation", "999"]),
        (1, &["channel", "delete", "nowhere"]),
        (1, &["channel", "describe", "nowhere"]),
        (1, &["channel", "trim", "flights", "--to", "5"]),
        (2, &["consume", "flights", "--from", "noon"]),
        (2, &["produce", "flights", "--batch-records", "0"]),
    ] {
        let errors = cluster.refused(exit_code, arguments);
        assert!(exit_code == 2 || errors.starts_with("error: E"), "{arguments:?} has a code: {errors}");
    }
    let mut producer = cluster.produce("10");
    producer.feed(b"a,b,c,d,e,f,g,h,i,still,here\n");
    assert_eq!(producer.finish().1, Some(0));
    assert_eq!(cluster.consume_from(0), b"a,b,c,d,e,f,g,h,i,still,here\n");
}

#[test]
fn without_a_profile_online_commands_say_how_to_name_one() {
    let output = output(tidelog().args(["status", "--json"]));
    assert_eq!(output.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        answer.get("error").and_then(Value::as_str).is_some_and(|error| error.starts_with("E3201 ")),
        "{answer}"
    );
}

/// Beginnings, limits and shapes of `consume`.
#[test]
fn consume_begins_and_ends_where_it_is_told() {
    let cluster = Cluster::start();
    cluster.json(&["channel", "create", "flights", "--partitions", "1"]);
    let mut producer = cluster.produce("2");
    let line = |name: &str| format!("a,b,c,d,e,f,g,h,i,{name}\n");
    producer.feed(["x", "y", "z"].map(line).concat().as_bytes());
    assert_eq!(producer.finish().1, Some(0));

    let read = |arguments: &[&str]| {
        let output = output(cluster.command(&["consume", "flights"]).args(arguments));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(read(&["--max", "1"]), line("x"));
    assert_eq!(read(&["--from", "1", "--until-end"]), ["y", "z"].map(line).concat());
    assert_eq!(read(&["--from", "latest", "--until-end"]), "");
    assert_eq!(
        read(&["--from", "2001-01-01T00:00:00Z", "--until-end", "--max", "2"]),
        ["x", "y"].map(line).concat()
    );
    let object: Value = serde_json::from_str(&read(&["--from", "2", "--json", "--until-end"])).unwrap();
    assert_eq!(object.get("offset"), Some(&Value::from(2)));
    assert_eq!(object.get("key"), Some(&Value::from("z")));
    assert_eq!(object.get("value"), Some(&Value::from(line("z").trim_end())));
}

/// Records of one key keep their order, whichever of several partitions they are in.
#[test]
fn records_of_one_key_keep_their_order_across_partitions() {
    let cluster = Cluster::start();
    let input = flights();
    cluster.json(&["channel", "create", "flights", "--partitions", "4"]);
    let mut producer = cluster.produce("50");
    producer.feed(&input);
    let (summary, exit_code) = producer.finish();
    assert_eq!(exit_code, Some(0), "{summary}");

    let of_carrier = |text: &[u8], carrier: &str| -> Vec<String> {
        let lines = String::from_utf8_lossy(text);
        let matching = lines.lines().filter(|line| line.split(',').nth(9) == Some(carrier));
        matching.map(str::to_owned).collect()
    };
    let partitions: Vec<Vec<u8>> = (0..4)
        .map(|partition: u32| {
            let partition = partition.to_string();
            output(&mut cluster.command(&["consume", "flights", "--partition", &partition])).stdout
        })
        .collect();
    for carrier in ["UA", "AA", "B6", "DL", "EV", "MQ", "US", "WN"] {
        let holding: Vec<Vec<String>> = partitions.iter().map(|text| of_carrier(text, carrier)).collect();
        let holding: Vec<&Vec<String>> = holding.iter().filter(|lines| !lines.is_empty()).collect();
        assert_eq!(holding, [&of_carrier(&input, carrier)], "{carrier} is in one partition, in order");
    }
    let told = summary.get("partitions").and_then(Value::as_array).unwrap();
    assert!(told.len() > 1, "{summary}");
    assert_eq!(told.iter().map(|partition| number(partition, "/records")).sum::<u64>(), 2_000);
    assert_eq!(output(&mut cluster.command(&["consume", "flights"])).stdout.len(), input.len());
}

/// What `cargo xtask demo` shows, with the committed extract.
#[test]
fn the_demonstration_finds_every_promise_kept() {
    let turn = cluster::turn();
    let extract = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/flights-extract.csv.gz");
    let output = output(tidelog().args(["demo", "--json", "--data", extract]));
    drop(turn);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, expected) in [("/acknowledged", 2_000), ("/read_back", 2_000), ("/lost", 0), ("/duplicated", 0)]
    {
        assert_eq!(number(&report, key), expected, "{report}");
    }
    assert_eq!(report.get("chains_equal"), Some(&Value::Bool(true)), "{report}");
    let killed_after = number(&report, "/killed_after_records");
    assert!((666..2_000).contains(&killed_after), "in mid-stream: {report}");
}
