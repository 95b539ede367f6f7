// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of the tree and of the protocol around it: one program, so that they share what they share.

mod common;
mod flush_threads;
mod model;
mod oracle;
mod tree;
