"""The depot service: REST, rules, blob store, Python client and the `depot` command."""
