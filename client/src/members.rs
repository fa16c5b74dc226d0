//! Requests about the cluster's members, about many channels at once, and about cursors.

use std::time::Duration;

use tidelog_wire::ids::{LogId, NodeId, Offset};
use tidelog_wire::protocol::{
    Answer, CHANNELS_PER_REQUEST_MAX, ClusterInfo, CreatedChannel, CursorInfo, ErrorReply, NewChannel,
    Request,
};

use crate::admin::{leader_of, unexpected};
use crate::client::{Client, Target};
use crate::error::ClientError;

/// Most bytes of channel names in one request, so that its header fits.
const NAME_BYTES_PER_REQUEST_MAX: usize = 32 * 1024;

/// Nodes that are asked about the cluster when the first one does not have all that was agreed on.
const MORE_NODES: usize = 8;
/// How long each of them may take.
const ANOTHER_NODE: Duration = Duration::from_secs(2);

/// What spreads replicas and leaders evenly, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Next changes of what is wanted of groups.
    pub replicas: Vec<String>,
    /// Leaders that should be elsewhere.
    pub leaders: Vec<String>,
}

impl Client {
    /// Creates channels, as many in a request as it takes; on return the logs of all that were created are open. Gives what came
    /// of each, in order. Not repeated if it is unknown whether it was done.
    ///
    /// # Errors
    /// As [`Client::create_channel`], about a request as a whole: those before it were carried out.
    pub async fn create_channels(
        &self,
        channels: Vec<NewChannel>,
    ) -> Result<Vec<Result<CreatedChannel, ErrorReply>>, ClientError> {
        let mut outcomes = Vec::with_capacity(channels.len());
        for channels in portions(channels) {
            let request = Request::CreateChannels { channels };
            match self.ask(Target::Any, &request, false).await? {
                (_, Answer::ChannelsCreated(created)) => outcomes.extend(created),
                (node, _) => return Err(unexpected(node, &request)),
            }
        }
        Ok(outcomes)
    }

    /// Nodes and groups as members: what is wanted of them, and what they said last. If the first node does not have all
    /// that was agreed on, the others are asked; if none has, [`ClusterInfo::current`] says so.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Timeout`].
    pub async fn cluster(&self) -> Result<ClusterInfo, ClientError> {
        let known = match self.ask(Target::Any, &Request::Cluster, true).await? {
            (_, Answer::Cluster(info)) => *info,
            (node, _) => return Err(unexpected(node, &Request::Cluster)),
        };
        if known.current {
            return Ok(known);
        }
        for node in self.cluster.nodes().into_iter().take(MORE_NODES) {
            let asked = self.ask(Target::Node(node), &Request::Cluster, true);
            if let Ok(Ok((_, Answer::Cluster(info)))) = tokio::time::timeout(ANOTHER_NODE, asked).await
                && info.current
            {
                return Ok(*info);
            }
        }
        Ok(known)
    }

    /// Makes a node hand on all that it holds. It goes on by itself; [`Client::cluster`] shows how far it is.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the reason, such as that too few nodes would be left; [`ClientError::Timeout`].
    pub async fn drain_node(&self, node: NodeId) -> Result<(), ClientError> {
        self.done(Target::Any, &Request::DrainNode { node }).await
    }

    /// Ends the membership of a node that holds nothing any more.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the reason; [`ClientError::Timeout`].
    pub async fn forget_node(&self, node: NodeId) -> Result<(), ClientError> {
        self.done(Target::Any, &Request::ForgetNode { node }).await
    }

    /// Spreads replicas and leaders evenly, or only says what that would take.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn rebalance(&self, dry_run: bool) -> Result<Balance, ClientError> {
        let request = Request::Rebalance { dry_run };
        match self.ask(Target::Any, &request, true).await? {
            (_, Answer::Balance { replicas, leaders }) => Ok(Balance { replicas, leaders }),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// Sets a cursor of a partition: durable on a quorum on return.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::ChannelChanged`], [`ClientError::Timeout`].
    pub async fn set_cursor(
        &self,
        channel: &str,
        log: LogId,
        name: &str,
        offset: Offset,
    ) -> Result<(), ClientError> {
        let request = Request::SetCursor { log, name: name.to_owned(), offset: Some(offset) };
        self.done(leader_of(channel, log), &request).await
    }

    /// Deletes a cursor of a partition. One that is not there is deleted too.
    ///
    /// # Errors
    /// As [`Client::set_cursor`].
    pub async fn delete_cursor(&self, channel: &str, log: LogId, name: &str) -> Result<(), ClientError> {
        let request = Request::SetCursor { log, name: name.to_owned(), offset: None };
        self.done(leader_of(channel, log), &request).await
    }

    /// Where a cursor of a partition stands, with all that was set before the call. `None`: there is none of the name.
    ///
    /// # Errors
    /// As [`Client::set_cursor`].
    pub async fn cursor(&self, channel: &str, log: LogId, name: &str) -> Result<Option<Offset>, ClientError> {
        let found = self.cursors_of(channel, log, Some(name)).await?;
        Ok(found.into_iter().find(|cursor| cursor.name == name).map(|cursor| cursor.offset))
    }

    /// All cursors of a partition, by name.
    ///
    /// # Errors
    /// As [`Client::set_cursor`].
    pub async fn cursors(&self, channel: &str, log: LogId) -> Result<Vec<CursorInfo>, ClientError> {
        self.cursors_of(channel, log, None).await
    }

    async fn cursors_of(
        &self,
        channel: &str,
        log: LogId,
        name: Option<&str>,
    ) -> Result<Vec<CursorInfo>, ClientError> {
        let request = Request::Cursors { log, name: name.map(str::to_owned) };
        match self.ask(leader_of(channel, log), &request, true).await? {
            (_, Answer::Cursors(cursors)) => Ok(cursors),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    async fn done(&self, target: Target, request: &Request) -> Result<(), ClientError> {
        match self.ask(target, request, true).await? {
            (_, Answer::Done) => Ok(()),
            (node, _) => Err(unexpected(node, request)),
        }
    }
}

/// Channels in portions that fit into a request each.
fn portions(channels: Vec<NewChannel>) -> Vec<Vec<NewChannel>> {
    let mut portions: Vec<Vec<NewChannel>> = Vec::new();
    let mut bytes = 0;
    for channel in channels {
        bytes += channel.name.len();
        match portions.last_mut() {
            Some(portion)
                if portion.len() < CHANNELS_PER_REQUEST_MAX && bytes <= NAME_BYTES_PER_REQUEST_MAX =>
            {
                portion.push(channel);
            }
            Some(_) | None => {
                bytes = channel.name.len();
                portions.push(vec![channel]);
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: String) -> NewChannel {
        NewChannel { name, partitions: 1, replicas: None, segment_bytes: None }
    }

    #[test]
    fn a_thousand_short_names_are_one_request_and_long_ones_are_split() {
        let short = (0..1000).map(|number| channel(format!("c-{number}"))).collect();
        assert_eq!(portions(short).iter().map(Vec::len).collect::<Vec<_>>(), [1000]);
        let more = (0..1001).map(|number| channel(format!("c-{number}"))).collect();
        assert_eq!(portions(more).iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1]);
        let long = (0..300).map(|_| channel("x".repeat(249))).collect();
        let lengths: Vec<_> = portions(long).iter().map(Vec::len).collect();
        assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (3, 300));
        assert!(portions(Vec::new()).is_empty());
    }
}
