mod listen;
mod observability;

fn main() {}
