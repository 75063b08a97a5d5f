"""HSNN: a hierarchy of nodes, each level with a model of its own, learned together with them."""
