//! Formats results as tables and documents. Does not talk to a server.

mod age;
pub mod columns;
mod document;
mod format;
mod natural;
mod table;
mod tabs;

pub use age::{age_since, parse_time};
pub use document::{document, json};
pub use format::Format;
pub use natural::natural_order;
pub use quorate_api::yaml::to_string as yaml;
pub use table::{Column, Row, ServerTable, TablePrinter, TableStyle};
pub use tabs::align;
