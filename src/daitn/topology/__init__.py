"""DRRT and its snapshots, the topology cut for one model (MS-DRRT), and their analysis."""
