"""`daitn report`: one file with everything about a job, for its model's owner."""
