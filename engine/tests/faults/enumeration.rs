//! Every call site of the storage trait, and every fault that can strike there.
//!
//! The workload runs once and every call that it makes is noted. Then it runs again for each call site
//! and each fault, struck once and struck from then on; the disk is mended, the power is cut, and what
//! was promised is held against what is there.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_engine::sim_disk::{Call, Lasting, SimDisk};

use crate::outcome::{Outcomes, Table, rendered};
use crate::promise::Harm;
use crate::sites::{Kind, Role, Site, Target, targets};
use crate::{consensus, embedded};

/// What a run of a workload came to.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// What callers were told of logs other than the neighbour, and of the neighbour.
    pub(crate) told: Outcomes,
    pub(crate) neighbour_told: Outcomes,
    pub(crate) violations: Vec<String>,
    /// The calls made before each phase.
    pub(crate) phases: Vec<(&'static str, usize)>,
    /// The calls noted until the disk was mended.
    pub(crate) calls: Vec<Call>,
}

/// Runs on a disk, mends it and looks what is there.
type Workload = fn(&SimDisk, Harm, bool, Lasting) -> Ran;

/// Runs a workload with a fault at a call.
fn strike(
    workload: Workload,
    target: &Target,
    kind: Kind,
    lasting: Lasting,
) -> Result<Outcomes, Vec<String>> {
    let disk = SimDisk::new(3);
    disk.inject(kind.fault(&target.call, target.nth, lasting));
    let mut run = workload(&disk, kind.harm(), target.site.role == Role::Checkpoint, lasting);
    if !run.neighbour_told.is_empty() && !kind.may_reach_the_neighbour(&target.call.path) {
        run.violations.push(format!("the neighbour was told {:?}", run.neighbour_told));
    }
    if run.violations.is_empty() {
        run.told.append(&mut run.neighbour_told);
        Ok(run.told)
    } else {
        Err(run.violations)
    }
}

/// The first, the second and the last call of each site.
fn chosen(all: Vec<Target>) -> Vec<Target> {
    let mut by_site: BTreeMap<Site, Vec<Target>> = BTreeMap::new();
    for target in all {
        by_site.entry(target.site.clone()).or_default().push(target);
    }
    let mut chosen = Vec::new();
    for mut targets in by_site.into_values() {
        let last = targets.pop();
        targets.truncate(2);
        chosen.extend(targets.into_iter().chain(last));
    }
    chosen
}

fn enumerate(workload: Workload, targets: &[Target]) -> (Table, Vec<String>, usize) {
    let (mut table, mut violations, mut runs) = (Table::new(), Vec::new(), 0);
    for target in targets {
        for kind in Kind::of(target.site.operation) {
            for lasting in [Lasting::Once, Lasting::Always] {
                if lasting == Lasting::Always && kind.harm() == Harm::Destroys {
                    continue;
                }
                runs += 1;
                let place = format!(
                    "{kind} {lasting:?} at {:?} #{} {}",
                    target.site,
                    target.nth,
                    target.call.path.display()
                );
                match catch_unwind(AssertUnwindSafe(|| strike(workload, target, *kind, lasting))) {
                    Ok(Ok(mut told)) => {
                        table.entry((target.site.clone(), *kind)).or_default().append(&mut told);
                    }
                    Ok(Err(found)) => violations.push(format!("{place}: {}", found.join(" | "))),
                    Err(_) => violations.push(format!("{place}: panicked")),
                }
            }
        }
    }
    (table, violations, runs)
}

/// Runs the workload without a fault and notes its calls.
fn recorded(workload: Workload) -> Vec<Target> {
    let disk = SimDisk::new(3);
    disk.note_calls();
    let run = workload(&disk, Harm::None, false, Lasting::Once);
    assert_eq!(run.violations, [""; 0], "without any fault");
    targets(&run.calls, &run.phases)
}

/// What the document says of a workload, between its marks.
fn documented(name: &str) -> &'static str {
    let all = include_str!("../../../docs/faults.md");
    let from = all.split_once(&format!("<!-- table: {name} -->")).map_or("", |(_, from)| from);
    from.split_once("<!-- end of table -->").map_or("", |(table, _)| table).trim()
}

/// The first, the second and the last call of each site, and the document says what came of them.
fn holds_at_every_site(name: &str, workload: Workload) {
    let all = recorded(workload);
    let calls = all.len();
    let chosen = chosen(all);
    let (table, violations, runs) = enumerate(workload, &chosen);
    println!("{name}: {calls} calls, {} chosen, {runs} runs, {} sites and faults", chosen.len(), table.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    let shown = rendered(&table);
    assert!(
        documented(name) == shown,
        "docs/faults.md is not what happens; put this between its marks:\n\n{shown}"
    );
}

#[test]
fn no_fault_at_any_call_site_breaks_a_promise_of_an_embedded_log() {
    holds_at_every_site("embedded", embedded::run);
}

#[test]
fn no_fault_at_any_call_site_breaks_a_promise_under_consensus() {
    holds_at_every_site("consensus", consensus::run);
}

/// Every single call, not three of each site: what differs within a site is met too.
fn holds_at_every_call(workload: Workload) {
    let (_, violations, runs) = enumerate(workload, &recorded(workload));
    println!("{runs} runs");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn no_fault_at_any_single_call_breaks_a_promise_of_an_embedded_log() {
    holds_at_every_call(embedded::run);
}

#[test]
fn no_fault_at_any_single_call_breaks_a_promise_under_consensus() {
    holds_at_every_call(consensus::run);
}
