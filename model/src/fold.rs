//! Folding paths to templates (see the ingest formats).
