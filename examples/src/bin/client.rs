//! Sends a line to a channel of a cluster and reads the channel back.
//!
//! ```text
//! cargo run -p tidelog-examples --bin client -- PATH/TO/client.toml CHANNEL "a line"
//! ```
//! `tidelog up` writes the profile, `tidelog channel create` makes the channel.

use std::error::Error;

use tidelog_client::{Client, ClientOptions, ConsumerOptions, NewRecord, ProducerOptions, Profile, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [profile, channel, line] = arguments.as_slice() else {
        return Err("usage: client PROFILE CHANNEL LINE".into());
    };
    let client = Client::new(Profile::load(profile.as_ref())?, ClientOptions::default())?;

    let producer = client.producer(channel, ProducerOptions::default()).await?;
    let record = NewRecord { partition: Some(0), ..NewRecord::value(line.clone()) };
    let delivered = producer.send(record).await?.delivered().await?;
    eprintln!("on a quorum of disks at offset {}", delivered.offset);
    producer.close().await;

    let mut consumer = client.consumer(channel, 0, Start::Earliest, ConsumerOptions::default()).await?;
    while consumer.position() <= delivered.offset {
        for record in consumer.poll().await?.records {
            println!("{} {}", record.offset, String::from_utf8_lossy(&record.value.unwrap_or_default()));
        }
    }
    client.close().await;
    Ok(())
}
