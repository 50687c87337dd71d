"""The actions of keys: one mixin over `Window` per file. `TreechatApp` inherits from all of them."""
