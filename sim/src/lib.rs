//! The whole cluster in one thread, with every fault.
