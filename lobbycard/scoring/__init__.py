"""From scores to answers, and how good the answers are. No torch."""
