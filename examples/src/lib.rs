//! Small programs that show tidelog in use: `embed` keeps a log inside a program, `client` talks to a cluster.
