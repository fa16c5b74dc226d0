//! The end of a run: everything is healed, and the cluster must go on, and agree, in bounded time.

use tidelog_engine::sim_disk::Crash;

use crate::oracle::{Violation, convergence};
use crate::schedule::Micros;
use crate::world::{Event, World};

/// Time between looks at whether the cluster agrees.
const LOOK_MICROS: u64 = 100_000;

impl World {
    /// Faults are over: links are joined, disks are fast, and whoever is down starts.
    pub(crate) fn storm_ends(&mut self) -> Result<(), Violation> {
        self.trace.note(self.schedule.now(), "calm", &[]);
        self.calm = true;
        self.calm_since = self.schedule.now();
        self.network.heal();
        self.settings.disk_micros = self.settings.disk_micros.min(500);
        for node in self.node_ids() {
            if let Some(state) = self.nodes.get_mut(&node) {
                state.slow_until = Micros(0);
            }
            if self.doomed.contains_key(&node) {
                self.crash(node, Crash::LoseUnsynced);
            }
            self.restart(node)?;
        }
        self.schedule.after(LOOK_MICROS, Event::CheckConvergence);
        Ok(())
    }

    /// Looks whether the cluster has gone on and agrees; if so, compares everything.
    pub(crate) fn check_convergence(&mut self) -> Result<(), Violation> {
        let waiting = self.clients.waiting().or_else(|| convergence::unfinished(&self.nodes));
        let Some(waiting) = waiting else {
            convergence::check(&self.nodes, &mut self.oracles)?;
            self.trace.note(self.schedule.now(), "converged", &[]);
            self.converged = true;
            return Ok(());
        };
        if self.schedule.now() > self.calm_since.after(self.settings.calm_micros) {
            return Err(Violation::of("a healed cluster goes on and agrees", waiting));
        }
        self.schedule.after(LOOK_MICROS, Event::CheckConvergence);
        Ok(())
    }
}
