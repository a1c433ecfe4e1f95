//! A seeded generator of a labelled mesh, loaders and cards of public sets
