"""`search`: recipes tried under a budget, on the validation split only. space.py reads what may vary, trials.py keeps the study
in its database, worker.py trains, launch.py starts workers and shows what they find. No torch but in the workers."""
