//! A data directory that the engine made and a disk, or somebody who forges checksums, has harmed.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidelog_engine::Mode;
use tidelog_fuzz::check::{Trust, recovered};
use tidelog_fuzz::damage::Damage;
use tidelog_fuzz::work::{Ending, Step, make};
use tidelog_fuzz::{formatted, settle};

/// Acts of damage taken of a case.
const DAMAGE_MAX: usize = 8;

#[derive(Arbitrary, Debug)]
struct Case {
    embedded: bool,
    ending: Ending,
    damage: Vec<Damage>,
    steps: Vec<Step>,
}

fuzz_target!(|case: Case| {
    let mode = if case.embedded { Mode::Embedded } else { Mode::Consensus };
    let disk = formatted();
    let mut model = make(&disk, mode, &case.steps, case.ending);
    let damage = case.damage.get(..DAMAGE_MAX.min(case.damage.len())).unwrap_or_default();
    for act in damage {
        act.strike(&disk);
    }
    let trust = match damage {
        [] => Trust::Sound,
        acts if acts.iter().any(Damage::forges) => Trust::Itself,
        _ => {
            settle(&disk);
            Trust::Model
        }
    };
    if trust == Trust::Itself {
        settle(&disk);
    }
    recovered(&disk, mode, &mut model, trust);
});
