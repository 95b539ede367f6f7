// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One module per verb.

pub mod start;
