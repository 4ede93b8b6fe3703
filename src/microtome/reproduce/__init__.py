"""Which numbers and figures of the papers come out again? One module for each paper, the paper's value beside ours."""
