//! From a stream of lines: what the partition holds already is compared with the stream's beginning and left out, the rest is
//! produced, and a file is compared in full at the end.

use std::path::Path;

use tidelog_client::{Consumer, ConsumerOptions, Start};
use tidelog_wire::ids::Offset;

use super::{Imported, Target};
use crate::error::CliError;
use crate::produce::input::{KeyColumn, Line, read_ahead};
use crate::produce::{self, Shape};
use crate::progress;
use crate::values::Delimiter;

/// Most records in a batch.
const BATCH_RECORDS: u32 = 500;

/// Imports the lines of a file, or of standard input.
pub(super) async fn import(
    target: &Target,
    file: Option<&Path>,
    key: Option<(u32, Delimiter)>,
) -> Result<Imported, CliError> {
    let key = key.map(|(column, delimiter)| KeyColumn { column, delimiter: delimiter.0 });
    let resumed_at = target.settled_end().await?;
    let records_max = usize::try_from(BATCH_RECORDS).unwrap_or(usize::MAX);
    let mut lines = produce::lines(file, key)?;
    let mut compared = Comparing::start(target, resumed_at).await?;
    for _ in 0..resumed_at.get() {
        match lines.read()? {
            Some(line) => compared.next(&line).await?,
            None => return Err(compared.differs("the stream is shorter")),
        }
    }
    let bar = progress::waiting("importing");
    let chunks = read_ahead(lines, records_max).map_err(|source| CliError::Runtime { source })?;
    let shape = Shape { batch_records: BATCH_RECORDS, partition: Some(target.log.partition.get()) };
    let counted = |records| bar.set_position(records);
    let sent = Box::pin(produce::send(&target.client, &target.channel, shape, chunks, counted)).await?;
    bar.finish_and_clear();
    if let Some(failure) = sent.failure {
        return Err(failure);
    }
    let end = target.settled_end().await?;
    let appended = sent.tally.records();
    if end.get() != resumed_at.get() + appended {
        let why = format!("it ends at {end}, and {} records were imported", resumed_at.get() + appended);
        return Err(CliError::NotTheSource { log: target.log, offset: end, why });
    }
    let proof = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let mut lines = produce::lines(Some(file), key)?;
            let mut compared = Comparing::start(target, end).await?;
            for _ in 0..end.get() {
                let line = lines.read()?.ok_or_else(|| compared.differs("the file has become shorter"))?;
                compared.next(&line).await?;
            }
            "every record was read back and compared with the file"
        }
        None => "every record was acknowledged; standard input cannot be read again to compare",
    };
    Ok(Imported {
        channel: target.channel.clone(),
        log: target.log.to_string(),
        resumed_at: resumed_at.get(),
        appended,
        records: end.get(),
        chain: None,
        compared: Vec::new(),
        proof,
    })
}

/// Reads the partition from its beginning, to be compared with lines.
struct Comparing<'a> {
    target: &'a Target,
    consumer: Option<Consumer>,
    waiting: std::collections::VecDeque<tidelog_client::Record>,
    next: Offset,
}

impl<'a> Comparing<'a> {
    /// Begins; reads nothing if there is nothing below `end`.
    async fn start(target: &'a Target, end: Offset) -> Result<Self, CliError> {
        let consumer = if end == Offset::ZERO {
            None
        } else {
            let partition = target.log.partition.get();
            let start = Start::Offset(Offset::ZERO);
            let consumer =
                target.client.consumer(&target.channel, partition, start, ConsumerOptions::default());
            Some(consumer.await?)
        };
        Ok(Self { target, consumer, waiting: std::collections::VecDeque::new(), next: Offset::ZERO })
    }

    /// The next record must be `line`.
    async fn next(&mut self, line: &Line) -> Result<(), CliError> {
        if self.waiting.is_empty()
            && let Some(consumer) = &mut self.consumer
        {
            self.waiting = consumer.poll().await?.records.into();
        }
        let Some(record) = self.waiting.pop_front() else {
            return Err(CliError::Stalled {
                log: self.target.log,
                offset: self.next,
                end: self.next.plus(1),
            });
        };
        if record.value.as_ref() != Some(&line.value) || record.key != line.key {
            return Err(self.differs("the record there is not the stream's"));
        }
        self.next = self.next.plus(1);
        Ok(())
    }

    fn differs(&self, why: &str) -> CliError {
        CliError::NotTheSource { log: self.target.log, offset: self.next, why: why.to_owned() }
    }
}
