"""One file per foreign or native format; values in, values out. `document` holds them, `structure` mends trees."""
