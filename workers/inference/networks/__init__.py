"""Networks that are not timm's own: a body of timm with other parts, one file each."""
