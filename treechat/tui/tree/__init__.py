"""The tree pane: its rows, its filters, its drawing."""
