//! What is said on the wire: Qualm's own protobuf messages and services
