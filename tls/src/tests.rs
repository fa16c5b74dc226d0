use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tidelog_wire::ids::{ClusterId, NodeId, TimestampMs};

use crate::reset::ResetKey;
use crate::*;

const CLUSTER: ClusterId = ClusterId(0xab);
const OTHER: ClusterId = ClusterId(0xcd);
const NOW: TimestampMs = TimestampMs(1_800_000_000_000);

fn file<'a>(path: &'a str, text: &'a str) -> PemFile<'a> {
    PemFile { path: Path::new(path), text }
}

fn credentials(authority: &Authority, pair: &PemPair) -> Credentials {
    let (ca, cert, key) =
        (file("ca.pem", authority.cert_pem()), file("c.pem", &pair.cert), file("c.key", &pair.key));
    Credentials::parse(&ca, &cert, &key).unwrap()
}

fn node(authority: &Authority, id: u64) -> Credentials {
    credentials(authority, &authority.issue_node(NodeId(id)).unwrap())
}

fn listen(credentials: &Credentials) -> (quinn::Endpoint, SocketAddr) {
    let config = server_config(credentials, Protocol::Peer).unwrap();
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let runtime = std::sync::Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(endpoint_config(credentials), Some(config), socket, runtime).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// Dials `name` at a listener with `server`'s credentials; both ends' views of the result.
async fn connect(
    server: &Credentials,
    client: &Credentials,
    name: &str,
    protocol: Protocol,
) -> (Result<quinn::Connection, String>, Result<quinn::Connection, String>) {
    let (endpoint, address) = listen(server);
    let mut dialler = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    dialler.set_default_client_config(client_config(client, protocol).unwrap());
    let dial = async {
        let connection = dialler.connect(address, name).unwrap().await.map_err(|error| error.to_string())?;
        // The dialler's certificate is judged after its own handshake is done: wait for the verdict.
        connection.accept_uni().await.map_err(|error| error.to_string())?;
        Ok(connection)
    };
    let accept = async {
        let connection = endpoint.accept().await.unwrap().await.map_err(|error| error.to_string())?;
        connection.open_uni().await.unwrap().write_all(b"welcome").await.unwrap();
        Ok(connection)
    };
    tokio::join!(dial, accept)
}

#[tokio::test]
async fn nodes_of_a_cluster_meet_and_each_proves_its_name() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, one) = (node(&authority, 0), node(&authority, 1));
    assert_eq!((zero.cluster(), zero.holder()), (CLUSTER, &Holder::Node(NodeId(0))));
    let (dialled, accepted) = connect(&zero, &one, &node_name(NodeId(0), CLUSTER), Protocol::Peer).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    expect_node(&dialled, CLUSTER, NodeId(0)).unwrap();
    expect_node(&accepted, CLUSTER, NodeId(1)).unwrap();
    let wrong = expect_node(&accepted, CLUSTER, NodeId(2)).unwrap_err();
    assert!(matches!(&wrong, TlsError::WrongPeer { found: Holder::Node(NodeId(1)), .. }), "{wrong}");
}

#[tokio::test]
async fn an_address_that_leads_to_another_node_is_refused() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, one) = (node(&authority, 0), node(&authority, 1));
    let (dialled, _) = connect(&zero, &one, &node_name(NodeId(2), CLUSTER), Protocol::Peer).await;
    assert!(dialled.unwrap_err().contains("not valid for name"));
}

#[tokio::test]
async fn another_cluster_is_refused_naming_both_on_either_side() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(OTHER).unwrap());
    let (listener, stranger) = (node(&ours, 0), node(&theirs, 1));
    let (dialled, _) = connect(&listener, &stranger, &node_name(NodeId(0), CLUSTER), Protocol::Peer).await;
    let text = dialled.unwrap_err();
    assert!(text.contains("E1411") && text.contains(&CLUSTER.to_string()), "{text}");
    assert!(text.contains(&OTHER.to_string()), "{text}");
}

/// A dialler that trusts the listener, but whose own certificate another authority issued.
#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_by_the_listener() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(OTHER).unwrap());
    let listener = node(&ours, 0);
    let mut stranger = node(&theirs, 1);
    stranger.ca = listener.ca.clone();
    let (dialled, accepted) =
        connect(&listener, &stranger, &node_name(NodeId(0), CLUSTER), Protocol::Peer).await;
    let text = accepted.unwrap_err();
    assert!(text.contains("E1411") && text.contains(&OTHER.to_string()), "{text}");
    assert!(dialled.is_err());
}

#[tokio::test]
async fn a_second_authority_for_the_same_cluster_id_is_not_believed() {
    let (ours, forged) = (Authority::create(CLUSTER).unwrap(), Authority::create(CLUSTER).unwrap());
    let (listener, stranger) = (node(&ours, 0), node(&forged, 1));
    let (dialled, _) = connect(&listener, &stranger, &node_name(NodeId(0), CLUSTER), Protocol::Peer).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn a_client_cannot_stand_in_for_a_node() {
    let authority = Authority::create(CLUSTER).unwrap();
    let client = credentials(&authority, &authority.issue_client("loader").unwrap());
    assert_eq!(client.holder(), &Holder::Client("loader".to_owned()));
    let zero = node(&authority, 0);
    let (dialled, accepted) = connect(&zero, &client, &node_name(NodeId(0), CLUSTER), Protocol::Peer).await;
    dialled.unwrap();
    let accepted = accepted.unwrap();
    assert_eq!(peer_holder(&accepted, CLUSTER).unwrap(), Holder::Client("loader".to_owned()));
    assert!(expect_node(&accepted, CLUSTER, NodeId(1)).is_err());
    let name = client_name("loader", CLUSTER).unwrap();
    let (dialled, _) = connect(&client, &zero, &name, Protocol::Peer).await;
    assert!(dialled.is_err(), "a client's certificate served as a node's");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, one) = (node(&authority, 0), node(&authority, 1));
    let (dialled, _) = connect(&zero, &one, &node_name(NodeId(0), CLUSTER), Protocol::Native).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn a_reloaded_authority_issues_what_the_cluster_believes() {
    let first = Authority::create(CLUSTER).unwrap();
    let zero = node(&first, 0);
    let key = first.key_pem();
    let again = Authority::load(&file("ca.pem", first.cert_pem()), &file("ca.key", &key)).unwrap();
    assert_eq!(again.cluster(), CLUSTER);
    let (dialled, _) = connect(&zero, &node(&again, 1), &node_name(NodeId(0), CLUSTER), Protocol::Peer).await;
    dialled.unwrap();
}

#[test]
fn wrong_files_are_named() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(OTHER).unwrap());
    let (zero, one, foreign) = (
        ours.issue_node(NodeId(0)).unwrap(),
        ours.issue_node(NodeId(1)).unwrap(),
        theirs.issue_node(NodeId(0)).unwrap(),
    );
    let ca = ours.cert_pem();
    let parse = |ca: &str, cert: &str, key: &str| {
        let files = (file("ca.pem", ca), file("node.pem", cert), file("node.key", key));
        Credentials::parse(&files.0, &files.1, &files.2).unwrap_err().to_string()
    };
    let starts = |text: String, start: &str| assert!(text.starts_with(start), "{text}");
    starts(parse("", &zero.cert, &zero.key), "E1401 ca.pem");
    starts(parse(ca, &zero.key, &zero.key), "E1401 node.pem");
    starts(parse(ca, &zero.cert, &zero.cert), "E1402 node.key");
    starts(parse(&zero.cert, &zero.cert, &zero.key), "E1403 ca.pem");
    starts(parse(ca, ca, &zero.key), "E1403 node.pem");
    starts(parse(ca, &foreign.cert, &foreign.key), "E1404 node.pem");
    starts(parse(ca, &zero.cert, &one.key), "E1405 node.pem");
    let key = theirs.key_pem();
    let error = Authority::load(&file("ca.pem", ca), &file("ca.key", &key)).unwrap_err();
    starts(error.to_string(), "E1410 ca.pem");
    for name in ["", "A", "a_b", "a-", &"a".repeat(57), "a.b"] {
        starts(ours.issue_client(name).unwrap_err().to_string(), "E1406");
    }
}

#[test]
fn private_keys_are_not_shown() {
    let authority = Authority::create(CLUSTER).unwrap();
    let pair = authority.issue_node(NodeId(0)).unwrap();
    let shown = format!("{authority:?} {pair:?} {:?}", node(&authority, 0));
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_reset_key_is_the_same_after_a_restart_and_another_for_another_node() {
    use quinn::crypto::HmacKey as _;
    let (first, again, other) =
        (ResetKey::derive(b"key of 0"), ResetKey::derive(b"key of 0"), ResetKey::derive(b"key of 1"));
    let mut signature = [0; 32];
    first.sign(b"connection", &mut signature);
    assert!(again.verify(b"connection", &signature).is_ok());
    assert!(again.verify(b"another", &signature).is_err());
    assert!(again.verify(b"connection", &signature[..31]).is_err());
    assert!(other.verify(b"connection", &signature).is_err());
}

/// The certificate that the other end of a connection showed.
fn shown(connection: &quinn::Connection) -> Vec<u8> {
    let any = connection.peer_identity().unwrap();
    let chain = any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    chain.first().unwrap().to_vec()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_on_new_connections_and_the_old_ones_stay() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, one) = (node(&authority, 0), node(&authority, 1));
    let (endpoint, address) = listen(&zero);
    let mut dialler = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    dialler.set_default_client_config(client_config(&one, Protocol::Peer).unwrap());
    let meet = async || {
        let name = node_name(NodeId(0), CLUSTER);
        let dial = dialler.connect(address, &name).unwrap();
        let accept = async { endpoint.accept().await.unwrap().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        (dialled.unwrap(), accepted)
    };
    let (before, accepted_before) = meet().await;
    // Clones of the credentials were taken when the endpoints were made; one call renews them all.
    assert!(zero.clone().renew(&node(&authority, 0), NOW).unwrap());
    assert!(one.clone().renew(&node(&authority, 1), NOW).unwrap());
    let (after, accepted_after) = meet().await;
    assert_ne!(shown(&before), shown(&after));
    assert_ne!(shown(&accepted_before), shown(&accepted_after));
    accepted_before.open_uni().await.unwrap().write_all(b"still here").await.unwrap();
    before.accept_uni().await.unwrap();
}

#[test]
fn what_cannot_take_the_place_of_a_certificate_leaves_it_in_use() {
    let now = NOW;
    let authority = Authority::create(CLUSTER).unwrap();
    let zero = node(&authority, 0);
    assert_eq!(zero.expires(), None);
    assert!(!zero.renew(&zero.clone(), now).unwrap(), "nothing new");
    let refused = |newer: &Credentials, why: &str| {
        let error = zero.renew(newer, now).unwrap_err().to_string();
        assert!(error.starts_with("E1412 c.pem") && error.contains(why), "{error}");
    };
    refused(&node(&authority, 1), "node 0");
    refused(&node(&Authority::create(CLUSTER).unwrap(), 0), "another authority");
    let mut forged = node(&Authority::create(CLUSTER).unwrap(), 0);
    forged.ca = zero.ca.clone();
    refused(&forged, "invalid peer certificate");
    let authority = authority.expiring(TimestampMs(now.get() - 1000));
    refused(&node(&authority, 0), "xpired");
    let authority = authority.expiring(TimestampMs(now.get() + 1000));
    assert!(zero.renew(&node(&authority, 0), now).unwrap());
    assert_eq!(zero.expires(), Some(TimestampMs(now.get() + 1000)));
}
