//! `tidelog channel`: makes, lists, describes, deletes and trims channels.

use serde::Serialize;
use tidelog_client::{ChannelState, Client, NewChannel};
use tidelog_wire::ids::{Generation, Offset, Partition};
use tidelog_wire::protocol::CHANNELS_PER_REQUEST_MAX;
use tokio::time::Instant;

use crate::arguments::Channel;
use crate::error::CliError;
use crate::output::{Answer, Output, table};
use crate::progress;
use crate::status;
use crate::status::view::{ChannelView, PARTITION_HEAD, partition_row};

#[derive(Serialize)]
struct Created {
    name: String,
    generation: Generation,
    /// The same life, as protocols with UUIDs name it.
    uuid: String,
    partitions: u32,
}

impl Answer for Created {
    fn text(&self) -> String {
        format!(
            "channel {} takes records: generation {}, partitions {}",
            self.name, self.generation, self.partitions
        )
    }
}

#[derive(Serialize)]
struct Deleted {
    name: String,
    generation: Generation,
}

impl Answer for Deleted {
    fn text(&self) -> String {
        format!("channel {} is deleted: generation {}", self.name, self.generation)
    }
}

#[derive(Serialize)]
struct Trimmed {
    name: String,
    partition: Partition,
    log_start: Offset,
}

impl Answer for Trimmed {
    fn text(&self) -> String {
        format!(
            "channel {}, partition {}: begins at offset {} now",
            self.name, self.partition, self.log_start
        )
    }
}

#[derive(Serialize)]
struct Listed {
    channels: Vec<ListedChannel>,
}

#[derive(Serialize)]
struct ListedChannel {
    name: String,
    generation: Generation,
    uuid: String,
    state: &'static str,
    partitions: usize,
    replicas: u32,
    segment_bytes: u64,
}

impl Answer for Listed {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .channels
            .iter()
            .map(|channel| {
                vec![
                    channel.name.clone(),
                    channel.generation.to_string(),
                    channel.state.to_owned(),
                    channel.partitions.to_string(),
                    channel.replicas.to_string(),
                    channel.segment_bytes.to_string(),
                ]
            })
            .collect();
        table(&["channel", "generation", "state", "partitions", "replicas", "segment bytes"], &rows)
    }
}

impl Answer for ChannelView {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.partitions.iter().map(|partition| partition_row(self, partition)).collect();
        table(&PARTITION_HEAD, &rows)
    }
}

/// Does what is asked for.
pub(crate) async fn run(channel: Channel, client: &Client, output: &Output) -> Result<(), CliError> {
    match channel {
        Channel::Create { names, count, partitions, replicas, segment_bytes } => {
            let segment_bytes = segment_bytes.map(|size| size.0);
            let new = |name| NewChannel { name, partitions, replicas, segment_bytes };
            match (names.as_slice(), count) {
                ([name], None) => {
                    let name = name.to_string();
                    let (generation, uuid) = client.create_channel(new(name.clone())).await?;
                    output.print(&Created { name, generation, uuid: uuid.to_string(), partitions });
                }
                (_, None) => {
                    let channels = names.iter().map(|name| new(name.to_string()));
                    create_many(client, channels.collect(), output).await?;
                }
                (_, Some(count)) => {
                    let numbered = |name| (0..count).map(move |number| format!("{name}-{number}"));
                    let channels = names.iter().flat_map(numbered).map(new);
                    create_many(client, channels.collect(), output).await?;
                }
            }
        }
        Channel::List => output.print(&list(client).await?),
        Channel::Describe { name } => output.print(&status::channel(client, name.as_str()).await?),
        Channel::Delete { name, generation } => {
            let generation = client.delete_channel(name.as_str(), generation.map(Generation)).await?;
            output.print(&Deleted { name: name.to_string(), generation });
        }
        Channel::Trim { name, partition, to } => {
            let log = client.log(name.as_str(), partition).await?;
            let log_start = client.trim(name.as_str(), log, Offset(to)).await?;
            output.print(&Trimmed { name: name.to_string(), partition: log.partition, log_start });
        }
    }
    Ok(())
}

/// What came of many channels.
#[derive(Serialize)]
struct CreatedMany {
    created: usize,
    refused: Vec<RefusedChannel>,
    seconds: f64,
}

#[derive(Serialize)]
struct RefusedChannel {
    name: String,
    error: String,
}

impl Answer for CreatedMany {
    fn text(&self) -> String {
        let mut lines: Vec<String> =
            self.refused.iter().map(|channel| format!("{}: {}", channel.name, channel.error)).collect();
        lines.push(format!("{} channels take records, after {:.1} s", self.created, self.seconds));
        lines.join("\n")
    }
}

/// Makes channels, a thousand in one request.
async fn create_many(client: &Client, channels: Vec<NewChannel>, output: &Output) -> Result<(), CliError> {
    let started = Instant::now();
    let (names, asked): (Vec<String>, usize) =
        (channels.iter().map(|channel| channel.name.clone()).collect(), channels.len());
    let bar = progress::steps(asked, "creating channels");
    let mut refused = Vec::new();
    let mut names = names.into_iter();
    let mut rest = channels.into_iter();
    loop {
        let portion: Vec<_> = rest.by_ref().take(CHANNELS_PER_REQUEST_MAX).collect();
        if portion.is_empty() {
            break;
        }
        for (outcome, name) in client.create_channels(portion).await?.into_iter().zip(names.by_ref()) {
            if let Err(error) = outcome {
                refused.push(RefusedChannel { name, error: error.to_string() });
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let failed = refused.len();
    output.print(&CreatedMany { created: asked - failed, refused, seconds: started.elapsed().as_secs_f64() });
    if failed == 0 { Ok(()) } else { Err(CliError::NotCreated { refused: failed, asked }) }
}

async fn list(client: &Client) -> Result<Listed, CliError> {
    let metadata = client.metadata(None).await?;
    let channels = metadata.channels.into_iter().map(|channel| ListedChannel {
        partitions: channel.partitions.len(),
        uuid: channel.uuid.to_string(),
        state: match channel.state {
            ChannelState::Creating => "creating",
            ChannelState::Active => "active",
            ChannelState::Deleting => "deleting",
        },
        name: channel.name,
        generation: channel.generation,
        replicas: channel.replicas,
        segment_bytes: channel.segment_bytes,
    });
    Ok(Listed { channels: channels.collect() })
}
