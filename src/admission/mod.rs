//! A pod that asks for admission -> whether its images run on the nodes it may land on. Nothing here opens anything:
//! `serve` fetches images and watches nodes.
//!
//! ```text
//! review (JSON) ─ review ─► pod ─ pods ─► containers that ask for a GPU, placement
//!     cluster (nodes, profiles) + placement ─ scheduling ─► candidate nodes
//!     facts + what the pod overrides + profiles ─ judgment ─► verdicts ─ decision ─► answer
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod affinity;
pub mod cluster;
pub mod decision;
pub mod judgment;
pub mod pods;
pub mod review;
pub mod scheduling;
