//! Query parameters.

use percent_encoding::percent_decode_str;
use quorate_api::Status;

/// The parameters of a request's query string, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// `BadRequest` when an escape does not yield UTF-8.
    pub fn parse(query: &str) -> Result<Self, Status> {
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((unescape(name)?, unescape(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Query)
    }

    /// Returns the first value of a parameter. An empty value counts as absent, as in Kubernetes.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Returns all values of a parameter, empty ones too.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Returns whether a parameter is set. Every value except `0`, `false` and `False` counts as true, including none.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().find(|(n, _)| n == name).is_some_and(|(_, v)| !matches!(v.as_str(), "0" | "false" | "False"))
    }

    /// # Errors
    /// `BadRequest` when the value is not a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| Status::bad_request(format!("{name}: invalid number {text:?} in the query")))
            })
            .transpose()
    }
}

fn unescape(text: &str) -> Result<String, Status> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Status::bad_request("the query is not valid UTF-8"))
}
