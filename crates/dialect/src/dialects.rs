//! One vendor, one file.

pub mod hyperverge;
pub mod ideamart;
pub mod iserveu;
pub mod paytm;
pub mod relid;
pub mod sandbox;
