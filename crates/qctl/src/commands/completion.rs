//! `completion`: scripts that complete commands and flags in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Result;
use crate::streams::Streams;

/// Print the completion script of a shell
///
/// For bash: source <(qctl completion bash)
#[derive(Debug, clap::Args)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub fn run(&self, streams: &mut Streams) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "qctl", &mut script);
        streams.text(script)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Script that loads the completions and prints those of the last of its arguments, as bash computes them.
    const COMPLETE: &str = r#"
        . "$1"
        shift
        complete -p qctl >/dev/null || exit
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        _qctl "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;

    /// Writes the script of a shell to a file, and has the shell check its syntax if it is installed.
    fn script(shell: Shell) -> tempfile::NamedTempFile {
        let (mut streams, output, _) = Streams::captured("");
        Completion { shell }.run(&mut streams).expect("a script");
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), output.text()).expect("a file");
        match Command::new(shell.to_string()).arg("-n").arg(file.path()).output() {
            Ok(listed) => assert!(listed.status.success(), "{shell}: {}", String::from_utf8_lossy(&listed.stderr)),
            Err(error) => assert!(error.kind() == ErrorKind::NotFound && shell != Shell::Bash, "{shell}: {error}"),
        }
        file
    }

    /// Returns bash's completions of the last word.
    fn completed(script: &Path, words: &[&str]) -> BTreeSet<String> {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile", "-c", COMPLETE, "bash"]).arg(script).args(words);
        let listed = bash.output().expect("bash");
        let text = String::from_utf8_lossy(&listed.stdout);
        assert!(listed.status.success(), "{words:?}: {}", String::from_utf8_lossy(&listed.stderr));
        text.lines().map(str::to_owned).collect()
    }

    fn commands() -> BTreeSet<String> {
        Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
    }

    #[test]
    fn bash_completes_commands_and_flags() {
        let script = script(Shell::Bash);
        let script = script.path();
        let all = completed(script, &["qctl", ""]);
        assert!(all.is_superset(&commands()), "{all:?}");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(completed(script, &["qctl", "ro"]), words(&["rollout"]));
        assert_eq!(completed(script, &["qctl", "rollout", "re"]), words(&["restart", "resume"]));
        assert_eq!(completed(script, &["qctl", "get", "--all"]), words(&["--all-namespaces"]));
        assert_eq!(completed(script, &["qctl", "completion", "f"]), words(&["fish"]));
    }

    #[test]
    fn zsh_and_fish_know_all_commands() {
        let zsh = std::fs::read_to_string(script(Shell::Zsh).path()).expect("a script");
        let fish = std::fs::read_to_string(script(Shell::Fish).path()).expect("a script");
        assert!(zsh.starts_with("#compdef qctl\n"), "zsh loads files that begin so");
        for command in commands() {
            assert!(zsh.contains(&format!("\n'{command}:")), "zsh: {command}");
            assert!(fish.contains(&format!("-f -a \"{command}\" ")), "fish: {command}");
        }
    }
}
