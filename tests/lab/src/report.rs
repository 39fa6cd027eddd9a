//! Everything that shows results to people.
//!
//! The rest of the lab measures and fills the types of [`crate::results`]; the modules here only
//! read them. Three readers, one source: the [live view](live) while a run goes on, the
//! [tables](table) when it is over, and the [page] that can be sent to somebody else.
//! None of them computes a figure of its own: what can be derived from a series is derived once,
//! in [`figures`], so that the page and the terminal never disagree.

pub mod chart;
pub mod figures;
pub mod live;
pub mod page;
pub mod table;

#[cfg(test)]
pub(crate) mod sample_data;
