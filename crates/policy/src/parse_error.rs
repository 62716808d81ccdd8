/// Why an option's text was refused. Neither part repeats the text: it may be logged, and some options hold codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Says what is wrong, and in which entry of the list.
    pub message: String,
    /// Shows the form by an example.
    pub hint: String,
}

impl ParseError {
    pub(crate) fn new(message: impl Into<String>, hint: &str) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}
