//! docs/operations/certificates.md: rotated without a restart, and a broken one leaves the old one in use.

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, output, tidelog};

fn expires(status: &Value, node: u64) -> Option<String> {
    let found = status.pointer(&format!("/nodes/{node}/certificate_expires"))?;
    found.as_str().map(str::to_owned)
}

#[test]
fn a_certificate_is_rotated_without_a_restart_and_a_broken_one_changes_nothing() {
    let cluster = Cluster::start();
    cluster.json(&["channel", "create", "flights"]);
    let before = cluster.status();
    let pid = before.pointer("/nodes/0/pid").cloned();
    assert_eq!(expires(&cluster.json(&["cluster", "status"]), 0), None, "`up` issues what does not expire");

    let tls = cluster.dir().join("tls");
    let issue = ["certs", "issue", "--node", "0", "--days", "30", "--dir", tls.to_str().unwrap()];
    assert!(output(tidelog().args(issue)).status.success());
    cluster.signal(&before, 0, Signal::HUP);
    let status = cluster.wait_for(&["cluster", "status"], "the new certificate is shown", |status| {
        expires(status, 0).is_some()
    });
    let until = expires(&status, 0);

    std::fs::copy(tls.join("node-1.pem"), tls.join("node-0.pem")).unwrap();
    cluster.signal(&before, 0, Signal::HUP);
    for _ in 0..600 {
        if cluster.log(0).contains("stays in use") {
            break;
        }
        // Each look is a new connection, which the node still answers with the old certificate.
        cluster.json(&["cluster", "status"]);
    }
    assert!(cluster.log(0).contains("E1405"), "{}", cluster.log(0));
    let status = cluster.json(&["cluster", "status"]);
    assert_eq!(expires(&status, 0), until, "the one before stays in use");
    assert_eq!(cluster.status().pointer("/nodes/0/pid").cloned(), pid, "nothing was restarted");
}
