"""The networks that can be trained, and the convolution arithmetic behind them."""
