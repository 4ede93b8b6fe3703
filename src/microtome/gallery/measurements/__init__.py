"""The measurements of the gallery: each a function of a workplace that gives findings for the documents' statements."""
