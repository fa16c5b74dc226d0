//! `tidelog cursor`: durable named positions of a partition.
//!
//! A cursor belongs to one life of a channel: when the channel is deleted its cursors are gone, and a channel made anew under the
//! name has none.

use clap::{Args, Subcommand};
use serde::Serialize;
use tidelog_client::{Client, CursorInfo};
use tidelog_wire::ids::{LogId, Offset, Partition};

use crate::error::CliError;
use crate::output::{Answer, Output, table};
use crate::values::ChannelName;

/// What can be done with cursors.
#[derive(Debug, Subcommand)]
pub(crate) enum Cursor {
    /// Sets a cursor; on return it is on a quorum's disks.
    Set {
        #[command(flatten)]
        place: Place,
        /// Its name.
        name: String,
        /// The position, such as the offset of the next record to read.
        offset: u64,
    },
    /// Shows where a cursor stands. Exits with 1 if there is none of the name.
    Get {
        #[command(flatten)]
        place: Place,
        /// Its name.
        name: String,
    },
    /// Lists the cursors of a partition.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Deletes a cursor. One that is not there is deleted too.
    Delete {
        #[command(flatten)]
        place: Place,
        /// Its name.
        name: String,
    },
}

/// Whose cursors.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The channel.
    channel: ChannelName,
    /// The partition.
    #[arg(long, value_name = "P", default_value_t = 0)]
    partition: u32,
}

#[derive(Serialize)]
struct View {
    channel: String,
    partition: Partition,
    name: String,
    /// Where it stands; none once it is deleted.
    offset: Option<Offset>,
}

impl Answer for View {
    fn text(&self) -> String {
        let Self { channel, partition, name, offset } = self;
        match offset {
            Some(offset) => {
                format!("channel {channel}, partition {partition}: cursor {name} stands at {offset}")
            }
            None => format!("channel {channel}, partition {partition}: there is no cursor {name}"),
        }
    }
}

#[derive(Serialize)]
struct Listed {
    channel: String,
    partition: Partition,
    cursors: Vec<ListedCursor>,
}

#[derive(Serialize)]
struct ListedCursor {
    name: String,
    offset: Offset,
}

impl Answer for Listed {
    fn text(&self) -> String {
        let row = |cursor: &ListedCursor| vec![cursor.name.clone(), cursor.offset.to_string()];
        table(&["cursor", "offset"], &self.cursors.iter().map(row).collect::<Vec<_>>())
    }
}

/// Does what is asked for.
pub(crate) async fn run(cursor: Cursor, client: &Client, output: &Output) -> Result<(), CliError> {
    match cursor {
        Cursor::Set { place, name, offset } => {
            let log = place.log(client).await?;
            client.set_cursor(place.channel.as_str(), log, &name, Offset(offset)).await?;
            output.print(&place.view(log, name, Some(Offset(offset))));
        }
        Cursor::Get { place, name } => {
            let log = place.log(client).await?;
            match client.cursor(place.channel.as_str(), log, &name).await? {
                Some(offset) => output.print(&place.view(log, name, Some(offset))),
                None => return Err(CliError::NoCursor { log, name }),
            }
        }
        Cursor::List { place } => {
            let log = place.log(client).await?;
            let cursors = client.cursors(place.channel.as_str(), log).await?;
            let listed = |CursorInfo { name, offset }| ListedCursor { name, offset };
            let cursors = cursors.into_iter().map(listed).collect();
            output.print(&Listed { channel: place.channel.to_string(), partition: log.partition, cursors });
        }
        Cursor::Delete { place, name } => {
            let log = place.log(client).await?;
            client.delete_cursor(place.channel.as_str(), log, &name).await?;
            output.print(&place.view(log, name, None));
        }
    }
    Ok(())
}

impl Place {
    async fn log(&self, client: &Client) -> Result<LogId, CliError> {
        Ok(client.log(self.channel.as_str(), self.partition).await?)
    }

    fn view(&self, log: LogId, name: String, offset: Option<Offset>) -> View {
        View { channel: self.channel.to_string(), partition: log.partition, name, offset }
    }
}
