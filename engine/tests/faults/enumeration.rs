//! Every call site of the storage trait, and every fault that can strike there.
//!
//! The workload runs once and every call that it makes is noted. Then it runs again for each call site
//! and each fault, struck once and struck from then on; the disk is mended, the power is cut, and what
//! was promised is held against what is there.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_engine::sim_disk::{Call, Lasting, SimDisk};

use crate::embedded;
use crate::outcome::{Outcomes, Table, rendered};
use crate::promise::Harm;
use crate::sites::{Kind, Role, Site, Target, targets};

/// Runs the embedded workload with a fault at a call.
fn strike(target: &Target, kind: Kind, lasting: Lasting) -> Result<Outcomes, Vec<String>> {
    let disk = SimDisk::new(3);
    disk.inject(kind.fault(&target.call, target.nth, lasting));
    let mut run = embedded::Run::new(&disk, kind.harm(), target.site.role == Role::Checkpoint);
    run.all();
    run.heal(lasting);
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

fn enumerate(targets: &[Target]) -> (Table, Vec<String>, usize) {
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
                match catch_unwind(AssertUnwindSafe(|| strike(target, *kind, lasting))) {
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
fn recorded() -> (Vec<Call>, Vec<(&'static str, usize)>) {
    let disk = SimDisk::new(3);
    disk.note_calls();
    let mut run = embedded::Run::new(&disk, Harm::None, false);
    run.all();
    let (calls, phases) = (disk.calls(), run.phases.clone());
    run.heal(Lasting::Once);
    assert_eq!(run.violations, [""; 0], "without any fault");
    (calls, phases)
}

/// What the document says, between its marks.
fn documented() -> &'static str {
    let all = include_str!("../../../docs/faults.md");
    let from = all.split_once("<!-- table of call sites -->").map_or("", |(_, from)| from);
    from.split_once("<!-- end of the table -->").map_or("", |(table, _)| table).trim()
}

/// The first, the second and the last call of each site, and the document says what came of them.
#[test]
fn no_fault_at_any_call_site_breaks_a_promise() {
    let (calls, phases) = recorded();
    let chosen = chosen(targets(&calls, &phases));
    let (table, violations, runs) = enumerate(&chosen);
    println!("{} calls, {} chosen, {runs} runs, {} sites and faults", calls.len(), chosen.len(), table.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    let shown = rendered(&table);
    assert!(
        documented() == shown,
        "docs/faults.md is not what happens; put this between its marks:\n\n{shown}"
    );
}

/// Every single call. Long; run it with `-- --ignored`.
#[test]
#[ignore = "minutes long: every call instead of three of each site"]
fn no_fault_at_any_call_breaks_a_promise() {
    let (calls, phases) = recorded();
    let (_, violations, runs) = enumerate(&targets(&calls, &phases));
    println!("{runs} runs");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
