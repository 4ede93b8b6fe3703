"""Which numbers and figures of the papers are reproduced? One module for each paper."""
