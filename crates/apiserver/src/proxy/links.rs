//! Links of a backend, which have to lead back through the proxy. Pure.

/// Rewrites the links of one exchange.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The path of the proxy as the client sent it, without its last slash. It names objects that exist, so it needs no
    /// escapes in HTML.
    prefix: String,
    /// The backend's address.
    backend: String,
    /// The host that the client has asked; empty if it gave none.
    asked: String,
}

impl Links {
    pub fn new(prefix: &str, backend: String, asked: &str) -> Self {
        Links { prefix: prefix.to_owned(), backend, asked: asked.to_owned() }
    }

    /// Returns the backend's address, as in its absolute links.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Returns the rewritten form of a link to the backend's root or below; `None` for a link that stays as it is: one
    /// to another host, one relative to the page, and one that leads through the proxy already.
    pub fn rewrite(&self, link: &str) -> Option<String> {
        let (origin, rest) = split_origin(link);
        let keeps_origin = match origin.map(|origin| origin.rsplit('/').next().unwrap_or_default()) {
            None if rest.starts_with('/') => false,
            Some(host) if !self.asked.is_empty() && host == self.asked => true,
            Some(host) if is_same_host(host, &self.backend) => false,
            None | Some(_) => return None,
        };
        let kept = origin.filter(|_| keeps_origin).unwrap_or_default();
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        if path.strip_prefix(&self.prefix).is_some_and(|below| below.is_empty() || below.starts_with('/')) {
            return (!keeps_origin && origin.is_some()).then(|| rest.to_owned());
        }
        let slash = if rest.starts_with('/') { "" } else { "/" };
        Some(format!("{kept}{}{slash}{rest}", self.prefix))
    }
}

/// Splits a link into its scheme and host, if it has a host, and the rest.
fn split_origin(link: &str) -> (Option<&str>, &str) {
    let lower = |n: usize| link.get(..n).map(str::to_ascii_lowercase);
    let begins = match () {
        () if link.starts_with("//") => 2,
        () if lower(7).as_deref() == Some("http://") => 7,
        () if lower(8).as_deref() == Some("https://") => 8,
        () => return (None, link),
    };
    let host_ends = link[begins..].find(['/', '?', '#']).map_or(link.len(), |at| begins + at);
    let (origin, rest) = link.split_at(host_ends);
    (Some(origin), rest)
}

/// Returns whether a link's host is the backend's. A link may leave out the default port.
fn is_same_host(host: &str, backend: &str) -> bool {
    host == backend || [":80", ":443"].iter().any(|port| backend.strip_suffix(port) == Some(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_backend_lead_through_the_proxy() {
        let prefix = "/api/v1/namespaces/a/pods/x:80/proxy";
        let links = Links::new(prefix, "10.0.0.1:80".to_owned(), "localhost:8001");
        let through = |rest: &str| Some(format!("{prefix}{rest}"));
        let cases = [
            ("/", through("/")),
            ("/a/b?c=/d#e", through("/a/b?c=/d#e")),
            ("/a//b/", through("/a//b/")),
            ("http://10.0.0.1:80/a", through("/a")),
            ("HTTPS://10.0.0.1/a/", through("/a/")),
            ("//10.0.0.1/a", through("/a")),
            ("http://10.0.0.1?q", through("/?q")),
            ("http://localhost:8001/a", Some(format!("http://localhost:8001{prefix}/a"))),
            ("http://example.com/a", None),
            ("//example.com/a", None),
            ("http://10.0.0.1:81/a", None),
            ("a/b", None),
            ("../a", None),
            ("?q", None),
            ("#top", None),
            ("", None),
            ("mailto:somebody@example.com", None),
            ("javascript:alert(1)", None),
            ("é//", None),
            (prefix, None),
            (&format!("{prefix}/a"), None),
            (&format!("{prefix}a"), through(&format!("{prefix}a"))),
            (&format!("http://10.0.0.1{prefix}/a"), through("/a")),
        ];
        for (link, expected) in cases {
            assert_eq!(links.rewrite(link), expected, "{link}");
        }
    }
}
