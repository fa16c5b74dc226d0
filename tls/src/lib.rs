//! TLS of a cluster: names in certificates, the authority that makes them, and the configurations built from them.
