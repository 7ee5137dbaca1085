"""What a trained model is asked, and how what it answers is ranked."""
