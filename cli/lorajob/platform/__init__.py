"""What the people who run a cluster decided for everyone's runs: read, checked, and held against a spec."""
