"""PRM-guided PPO inside the host. Read in this order:

- `option_groups.py`, `algorithm_choices.py`, `plugin_options.py`: what can be asked for, and what a run builds of it;
- `flags.py`, `unread_flags.py`, `flag_checks.py`, `prompt_checks.py`: the command line, refused before anything starts;
- `rollout/`: a response ends, is split into steps, scored and branched from, in the rollout actor;
- `rollout_columns.py`, `mixing.py`, `outcome_penalties.py`, `diversity.py`, `watching.py`, `logged_columns.py`: a
  rollout becomes rewards and figures;
- `experience.py`: rewards become advantages in the host's experience maker;
- `trainers.py`, `progress.py`, `samples.py`, `online_prm.py`, `response_rows.py`: the host's trainers with all of this
  inside.
"""
