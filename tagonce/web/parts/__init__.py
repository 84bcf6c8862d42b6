"""Parts that several pages show: cards, sliders, charts, selections."""
