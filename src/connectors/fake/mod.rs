//! A network of Lightning nodes in memory: it keeps what the port promises, and nothing else.
