//! Raising the log start: trim to an offset, or purge everything.
//!
//! Only whole sealed segments go, and only once no kept checkpoint and no pin names them: this hands
//! them to `crate::directory::keep` and forgets them. A purge ends the active segment first, so that its file
//! goes too; offsets and chain go on.

use tidelog_wire::ids::Offset;

use super::error::{AppendError, LogError};
use super::reader::Visible;
use super::writer::LogWriter;

impl LogWriter {
    /// Raises the log start to `to`; a log whose start lies at or above it stays as it is.
    ///
    /// Not durable by itself: the start is part of the next checkpoint, or the entry is applied again.
    ///
    /// # Errors
    /// - [`LogError::Removed`]: the log was removed. Nothing was changed.
    /// - [`LogError::OutOfRange`]: `to` lies above the log end. Nothing was changed.
    /// - [`LogError::DiskFull`], [`LogError::OutOfHandles`]: a purge could not end the active segment. Nothing was changed; try again.
    /// - [`LogError::Io`], [`LogError::Fenced`]: a purge could not end the active segment.
    pub fn set_log_start(&mut self, to: Offset) -> Result<(), LogError> {
        self.raise_start(to)?;
        self.shared.core.unlink_unnamed();
        Ok(())
    }

    /// The same, but what may be unlinked now stays until somebody does that.
    pub(crate) fn raise_start(&mut self, to: Offset) -> Result<(), LogError> {
        let (start, end) = {
            let view = self.shared.view();
            (view.start, view.end)
        };
        if self.shared.is_removed() {
            return Err(LogError::Removed { log: self.shared.id });
        }
        if to > end {
            return Err(LogError::OutOfRange { log: self.shared.id, asked: to, start, end });
        }
        if to <= start {
            return Ok(());
        }
        if to == end {
            self.roll().map_err(|error| self.as_log_error(error))?;
        }
        // A file that somebody put there must not make a segment that holds `to` look as if it ended before.
        let holder = self.shared.view().segments.base_before(to.plus(1));
        if let Some(holder) = holder {
            let mending = self.shared.mending();
            if let Err(error) = self.shared.set_covered_aside(holder) {
                tracing::warn!(log = %self.shared.id, %error, "cannot set aside what does not belong into the log");
            }
            drop(mending);
        }
        let gone: Vec<(Offset, Offset)> = {
            let mut view = self.shared.view();
            view.start = to;
            view.durable_end = view.durable_end.max(to);
            let active = self.active.as_ref().map(|active| active.segment.base);
            let mut gone = view.segments.ended_by(to, view.end);
            gone.retain(|(base, _)| active != Some(*base));
            for (base, _) in &gone {
                view.segments.remove(*base);
            }
            gone
        };
        // Who waited for something below is to look where the log begins now.
        self.shared.grown(Visible::Durable, to);
        self.shared.forget_damage_below(to);
        self.shared.core.keep.doom(self.shared.id, &gone);
        Ok(())
    }

    pub(crate) fn as_log_error(&self, error: AppendError) -> LogError {
        match error {
            AppendError::Io { path, action, source } => LogError::Io { path, action, source },
            AppendError::OutOfHandles(error) => LogError::OutOfHandles(error),
            AppendError::DiskFull { path } => LogError::DiskFull { path },
            AppendError::Quarantine(error) => LogError::Quarantine(error),
            AppendError::Removed { log } => LogError::Removed { log },
            AppendError::Fenced { .. } | AppendError::TooLarge { .. } => {
                LogError::Fenced { log: self.shared.id }
            }
        }
    }
}
