"""What commands share: flags made from the spec's fields, the options of a cluster, names of runs, forms of output."""
