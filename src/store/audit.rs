//! Recomputes what can be recomputed and says where the books differ. It writes nothing.
