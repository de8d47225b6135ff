"""Small trained models, one folder each: a card (`card.toml`) and, where interpose trained it, its weights. Data."""
